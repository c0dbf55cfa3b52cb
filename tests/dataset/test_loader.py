"""Batches: right rows, the same again after a resume, shared out without loss, and fast."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.batch import Batch, Features
from dataset import loader as loader_module
from dataset.augmentation import Draws, uniform
from dataset.image_cache import OriginalImages
from dataset.loader import (
    EpochOrder,
    SplitView,
    ViewInputs,
    flatten_captions,
    make_loader,
    set_epoch,
)
from dataset.operation_lists import ImageOperations
from utils.errors import UserError

N, C, S = 30, 4, 16
ROWS = np.random.default_rng(1).permutation(N)[:23]
LABELS = np.eye(C, dtype=np.float32)[np.arange(N) % C]
LARGE = np.random.default_rng(0).integers(0, 256, (N, S + 4, S + 4, 3), dtype=np.uint8)
IMAGES = LARGE[:, :S, :S]
INPUT = SimpleNamespace(size=S, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
TEXTS, OFFSETS = flatten_captions([[f"{i}/{j}" for j in range(1 + i % 5)] for i in range(N)])
TOKENS = torch.arange(len(TEXTS)).unsqueeze(1).repeat(1, 3), torch.zeros(len(TEXTS), 3, dtype=bool)


LISTS = {
    "crop": ("flip 0.5", "random_crop 16"),
    "resized": ("random_resized_crop 16 scale 0.08-1 ratio 3/4-4/3 bilinear", "flip 0.5"),
    "jitter": ("random_crop 16", "color_jitter brightness 0.3 contrast 0.3"),
    "none": (),
}


def at_access(name: str):
    """The random part of a list that starts from pictures of S + 4 px."""
    words = ("squash 20 bicubic", *LISTS[name])
    return ImageOperations.parse(words, "data.train_image").split()[1]


READ = {field.name for field in dataclasses.fields(ViewInputs)}


def view(**keys) -> SplitView:
    inputs = ViewInputs(**{name: keys.pop(name) for name in READ & keys.keys()})
    return SplitView(ROWS, LABELS, inputs, **keys)


def full_view(**keys) -> SplitView:
    keys = {"operations": at_access("crop"), "captions": "random", "seed": 3, **keys}
    keys = {"images": LARGE if keys["operations"] else IMAGES, **keys}
    return view(
        image_input=INPUT, tokens=TOKENS, caption_offsets=OFFSETS, **keys
    )  # fmt: skip


def equal(one: Batch, two: Batch) -> bool:
    pairs = [(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(Batch)]
    return all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor))


def epochs(loader, which) -> list[Batch]:
    batches = []
    for epoch in which:
        set_epoch(loader, epoch)
        batches += list(loader)
    return batches


def test_a_batch_holds_what_was_asked_for():
    batch = view(images=IMAGES, image_input=INPUT, extras={"row": np.arange(N)}).__getitems__(
        [5, 0]
    )
    assert len(batch) == 2 and batch.index.tolist() == [5, 0] and batch.text is None
    assert batch.extras["row"].tolist() == ROWS[[5, 0]].tolist()
    np.testing.assert_array_equal(batch.label, LABELS[ROWS[[5, 0]]])
    mean, std = (np.array(x).reshape(3, 1, 1) for x in (INPUT.mean, INPUT.std))
    expected = (IMAGES[ROWS[5]].transpose(2, 0, 1) / 255 - mean) / std
    np.testing.assert_allclose(batch.image[0], expected, atol=1e-6)
    assert batch.image.is_contiguous() and batch.image.dtype == torch.float32
    assert view()[3].index.tolist() == [3]


def test_first_caption_and_caption_features():
    pooled = np.arange(len(TEXTS), dtype=np.float16)[:, None]
    mask = torch.zeros(len(TEXTS), 3, dtype=torch.bool)
    text = Features(pooled, torch.zeros(len(TEXTS), 3, 2), mask)
    both = view(tokens=TOKENS, text_features=text, caption_offsets=OFFSETS)
    batch = both.__getitems__(range(23))
    assert batch.text[:, 0].tolist() == OFFSETS[ROWS].tolist()
    assert batch.text_features.pooled.dtype == torch.float32
    assert batch.text_features.pooled[:, 0].tolist() == OFFSETS[ROWS].tolist()
    assert batch.text_features.tokens.shape == (23, 3, 2)
    assert batch.text_mask.dtype == batch.text_features.mask.dtype == torch.bool


def test_random_captions_belong_to_their_row_and_change_with_the_epoch():
    some = view(tokens=TOKENS, caption_offsets=OFFSETS, captions="random")
    seen = [set() for _ in ROWS]
    for epoch in range(60):
        some.set_epoch(epoch)
        for i, caption in enumerate(some.__getitems__(range(23)).text[:, 0].tolist()):
            seen[i].add(caption)
            assert TEXTS[caption].split("/")[0] == str(ROWS[i])
    assert [len(s) for s in seen] == [1 + row % 5 for row in ROWS]


@pytest.mark.parametrize("name", LISTS)
def test_resumed_and_uninterrupted_runs_see_the_same(name):
    keys = {"operations": at_access(name)}
    straight = epochs(make_loader(full_view(**keys), 5, shuffle=True, seed=1), range(3))
    torch.manual_seed(99)
    resumed = epochs(make_loader(full_view(**keys), 5, shuffle=True, seed=1), [2])
    assert len(straight) == 15 and len(resumed) == 5
    assert all(equal(a, b) for a, b in zip(straight[10:], resumed, strict=True))
    assert not equal(straight[0], straight[5])


def test_a_batch_does_not_depend_on_its_company():
    some = full_view(operations=at_access("resized"))
    together, alone = some.__getitems__([4, 9, 2]), some.__getitems__([9])
    assert torch.equal(together.image[1], alone.image[0])
    assert torch.equal(together.text[1], alone.text[0])


def test_worker_processes_give_the_same():
    ours = epochs(make_loader(full_view(), 4, shuffle=True, seed=7), range(2))
    theirs = epochs(make_loader(full_view(), 4, shuffle=True, seed=7, workers=2), range(2))
    assert all(equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_loading_leaves_torchs_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    epochs(make_loader(full_view(), 4, shuffle=True), range(2))
    assert torch.equal(before, torch.get_rng_state())


def test_order():
    order = EpochOrder(23, 5, seed=2)
    first = list(order)
    assert [len(b) for b in first] == [5, 5, 5, 5, 3] and len(order) == 5
    assert sorted(sum(first, [])) == list(range(23)) and list(order) == first
    order.set_epoch(1)
    assert list(order) != first
    assert [len(b) for b in EpochOrder(23, 5, drop_last=True)] == [5, 5, 5, 5]
    assert list(EpochOrder(3, 2, shuffle=False)) == [[0, 1], [2]]
    assert list(EpochOrder(1, 100)) == [[0]]


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("n", [4, 21, 23, 40])
def test_processes_share_the_same_global_batch(world, n):
    shares = [list(EpochOrder(n, 4, seed=5, rank=r, world=world)) for r in range(world)]
    assert len({len(s) for s in shares}) == 1
    merged = [sum(parts, []) for parts in zip(*shares, strict=True)]
    assert sum(merged, []) == sum(EpochOrder(n, 4, seed=5), [])
    assert merged[:-1] == list(EpochOrder(n, 4, seed=5))[: len(merged) - 1]
    for parts in zip(*shares, strict=True):
        sizes = [len(p) for p in parts]
        assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


def test_uniform_numbers_are_uniform_and_unrelated():
    positions = np.arange(20000)
    draws = {
        key: uniform(key[0], key[1], positions, key[2])
        for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-5, 7, 2)]
    }
    for numbers in draws.values():
        counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
        assert numbers.min() >= 0 and numbers.max() < 1 and abs(counts - 1000).max() < 150
    correlation = np.corrcoef(list(draws.values())) - np.eye(len(draws))
    assert abs(correlation).max() < 0.03
    assert abs(np.corrcoef(draws[0, 0, 0][1:], draws[0, 0, 0][:-1])[0, 1]) < 0.03


def test_chance_changes_a_picture_by_epoch_and_position():
    some = full_view(images=IMAGES, operations=at_access("crop")[:1])
    plain = full_view(operations=()).__getitems__(range(23)).image
    seen = []
    for epoch in range(20):
        some.set_epoch(epoch)
        images = some.__getitems__(range(23)).image
        same = (images == plain).flatten(1).all(1)
        mirrored = (images == plain.flip(3)).flatten(1).all(1)
        assert (same ^ mirrored).all()
        seen.append(same)
    share = torch.stack(seen).float().mean(0)
    assert 0.4 < share.mean() < 0.6 and (share > 0).all() and (share < 1).all()


def test_draws_are_those_of_uniform():
    draws = Draws(3, 5, np.array([7, 2]))
    assert draws.number(1, 130) == uniform(3, 5, np.array([2]), 130)[0]


def test_originals_are_cropped_as_they_are():
    class Source:
        fingerprint = "ramps"

        def __len__(self):
            return N

        def decode(self, row):
            return np.full((S + row, 2 * S, 3), row, np.uint8)

    operations = ImageOperations.parse(
        ("flip 0.5", "random_resized_crop 16 scale 0.08-1 ratio 3/4-4/3 bilinear of original"), ""
    ).split()[1]
    originals = full_view(images=OriginalImages(Source()), operations=operations)
    alone = originals.__getitems__([9])
    batch = originals.__getitems__(range(23))
    mean, std = INPUT.mean[0], INPUT.std[0]
    rows = (batch.image[:, 0] * std + mean) * 255
    torch.testing.assert_close(rows, torch.tensor(ROWS).float()[:, None, None].expand(23, S, S))
    assert torch.equal(alone.image[0], batch.image[9])
    theirs = epochs(make_loader(originals, 4, shuffle=True, seed=7, workers=2), [1])
    ours = epochs(make_loader(originals, 4, shuffle=True, seed=7), [1])
    assert all(equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: view(captions="frist"), "Did you mean 'first'"),
        (lambda: make_loader(view(), 0), "batch_size=0"),
        (lambda: make_loader(view(), 4, workers=-1), "data.workers=-1"),
        (lambda: make_loader(view(), 1, world=2), "cannot be shared by 2 processes"),
        (lambda: make_loader(view(), 24, drop_last=True), "leaves no batch of 23 rows"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_pictures_that_do_not_fit_the_backbone():
    with pytest.raises(ValueError, match="need an image_input"):
        view(images=IMAGES)
    with pytest.raises(ValueError, match="do not have 8 px"):
        view(images=IMAGES, image_input=SimpleNamespace(size=8, mean=(0,) * 3, std=(1,) * 3))


def test_cached_features_are_gathered_a_batch_at_a_time(monkeypatch):
    gathered = []
    take = loader_module._take

    def counting(array, rows):
        gathered.append(len(rows))
        return take(array, rows)

    monkeypatch.setattr(loader_module, "_take", counting)
    features = np.random.default_rng(0).standard_normal((4000, 512), dtype=np.float32)
    some = SplitView(
        np.arange(4000), np.ones((4000, 24)),
        ViewInputs(
            image_features=(features, None, None),
            text_features=(np.repeat(features, 5, axis=0), None, None),
            caption_offsets=np.arange(0, 20001, 5),
        ),
        captions="random",
    )  # fmt: skip
    loader = make_loader(some, 100, shuffle=True)
    assert sum(len(batch) for batch in loader) == 4000
    assert gathered == [100] * 80  # pictures and texts of 40 batches, never row by row


def test_the_seed_decides_order_captions_and_pictures():
    def seen(seed, what):
        if what == "order":
            return [row for batch in EpochOrder(23, 5, seed=seed) for row in batch]
        batch = full_view(seed=seed).__getitems__(range(23))
        return (batch.text[:, 0] if what == "captions" else batch.image).tolist()

    for what in ("order", "captions", "pictures"):
        assert seen(0, what) == seen(0, what), what
        assert len({str(seen(seed, what)) for seed in range(4)}) == 4, what
