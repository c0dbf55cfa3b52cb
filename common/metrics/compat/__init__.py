"""What each reference repository computes as mAP, by name, and its rules of ties."""
