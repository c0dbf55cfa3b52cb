"""The sentence for a name that nobody knows."""

from utils.errors import UserError, nearest, unknown_name


def test_nearest_name():
    assert nearest("dcmth", ["dsph", "dcmht"]) == " Did you mean 'dcmht'?"
    assert nearest("zzz", ["dsph", "dcmht"]) == ""
    assert nearest("x", []) == ""


def test_unknown_name_lists_what_is_known():
    error = unknown_name("method", "cqs", iter(["itq", "csq"]))
    assert isinstance(error, UserError)
    assert str(error) == "Unknown method 'cqs'. Did you mean 'csq'? Known: csq, itq."


def test_unknown_name_of_nothing():
    assert str(unknown_name("sweep", "a", [])) == "Unknown sweep 'a'. Known: none."
