"""What runs say together: leaderboard, tests of significance, tables, plots."""
