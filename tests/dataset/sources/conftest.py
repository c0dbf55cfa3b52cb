"""Small datasets in their official layouts, prepared when a test asks for them."""

import pytest

import main
from tests.dataset.sources.layouts import WRITERS


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Return name → folder, prepared when it is first asked for."""
    folders = {}

    def root(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            WRITERS[name](folders[name])
            assert main.main(["prepare", name, "--root", str(folders[name])]) == 0
        return folders[name]

    return root
