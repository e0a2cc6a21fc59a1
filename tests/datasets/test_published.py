"""Published sizes: what stands in for a set has the images, classes and splits that are promised."""

import numpy as np
import pytest

from orchestrator.api.shipped import STUDIES, shipped_studies
from orchestrator.config.load import read_study, scales_of
from orchestrator.datasets.builtin import BUILTINS
from orchestrator.datasets.published import NOT_STAGED, PUBLISHED
from orchestrator.stages.graph import dataset_names
from orchestrator.sweep.points import expand

OWN = {"my-faces"}
"""Sets of whoever runs a study: nobody publishes a size of theirs."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_labels_fit_the_description(name: str) -> None:
    about = PUBLISHED[name]
    described, (labels, splits) = about.description(name), about.labels()
    assert described.source == NOT_STAGED
    assert (len(labels), len(np.unique(labels))) == (described.num_images, described.num_classes)
    assert len(described.class_names) == described.num_classes
    assert described.splits == tuple(sorted(splits))
    for split, shares in about.splits.items():
        found = np.bincount(splits[split], minlength=3) / len(labels)
        assert found == pytest.approx(np.array(shares), abs=0.06)
        parts = [part for part, share in enumerate(shares) if share]
        assert all(len(np.unique(labels[splits[split] == part])) == described.num_classes for part in parts)


def test_every_set_of_the_papers_scale_has_a_published_size() -> None:
    names = set()
    for study in shipped_studies():
        points = expand(read_study(STUDIES / f"{study}.yaml"))[0]
        for data, other in {(point.spec.data, point.spec.prior) for point in points}:
            names |= {data.dataset, *filter(None, [other and other.dataset])}
        names |= {name for point in points[:1] for name in dataset_names(point.spec).values()}
    assert names - set(BUILTINS) - OWN <= set(PUBLISHED)
    assert scales_of(STUDIES / "demo.yaml")
