"""docs/datasets.md matches the cards of the datasets."""

import pytest

from vidjax.analysis.datasets import PAGE, update
from vidjax.data.datasets import card, dataset_names
from vidjax.data.targets import ClassTarget, MultiLabelTarget

PUBLISHED = [name for name in dataset_names() if card(name)]


def test_the_tables_are_current():
    assert update(PAGE.read_text()) == PAGE.read_text(), "run `python -m vidjax.analysis.datasets`"


@pytest.mark.parametrize("name", PUBLISHED)
def test_cards_are_complete(name):
    about = card(name)
    assert about.title and about.paper and about.metric and about.layout and about.splits and about.targets
    assert about.classes or not {ClassTarget, MultiLabelTarget} & {*about.targets}
