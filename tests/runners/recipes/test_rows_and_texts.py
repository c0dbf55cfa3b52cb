"""Rows and texts of runs in neutral words, and what settings change."""

from common.config.run_config import compose
from runners.recipes.describe import describe
from runners.recipes.rows import describe_rows
from runners.recipes.texts import describe_texts


def rows_of(*words):
    return describe_rows(compose(["method=dsph", "bits=16", *words]))["rows"]


def test_the_recipe_states_how_pictures_become_rgb():
    def colour(*words):
        return describe(compose(["method=csq", "bits=16", *words]))["colour"]

    release = "RGB by PIL, no EXIF rotation"
    assert colour("dataset=flickr25k") == colour("dataset=imagenet100") == release
    assert colour("dataset=folder").startswith("RGB as seen")
    assert colour("dataset=mat").startswith("RGB as seen")
    assert colour("dataset=folder", "dataset.colour=release") == release


def test_changed_numbers_are_told():
    rows = rows_of("dataset=coco", "eval.select=last", "dataset.split.query=4000")
    assert (rows["query"], rows["train"], rows["database"]) == (4000, 10_000, 118_218)
    rows = rows_of("dataset=coco", "eval.select=val", "eval.val_size=0.1")
    assert (rows["train"], rows["validation"]) == (9000, 1000)
    assert rows_of("dataset=coco", "dataset.split.seed=7")["permutation"]["seed"] == 7
    words = ["dataset=cifar10", "dataset.split.query=50", "eval.select=last", "method=csq"]
    rows = rows_of(*words)
    assert (rows["query"], rows["database"], rows["permutation"]["seed"]) == (500, 54_500, 0)
    assert rows["rule"].startswith("of every class 50 queries, 500 training rows")
    assert rows_of(*words, "dataset.split.seed=3")["permutation"]["seed"] == 3
    rows = rows_of(*words, "dataset.split.name=cifar10-2", "dataset.split.train=4000")
    assert rows["train"] == rows["database"] == 40_000


def test_other_datasets_state_their_rule():
    rows = rows_of("dataset=mat", "dataset.split.query=5000", "dataset.split.train=10000",
                   "eval.select=query")  # fmt: skip
    assert rows["rule"].startswith("one permutation") and rows["order"] is None
    assert rows["permutation"] == {"generator": "numpy.random.RandomState", "seed": 1814}
    assert (rows["query"], rows["train"], rows["total"]) == (5000, 10_000, None)
    rows = rows_of("dataset=lists", "method=csq", "eval.select=last")
    assert rows["rule"] == "lists train.txt, test.txt, database.txt" and rows["train"] is None
    assert rows_of("dataset=lists", "method=csq")["validation"] == "10% of the training rows"
    rows = rows_of("dataset=creatures_image", "method=csq", "eval.select=last")
    assert rows["order"] is None and rows["query_in_database"] in (None, False)
    rows = rows_of("dataset=awa2", "method=pixel_released")
    assert rows["rule"] == "pixel: PIXEL, PZSH" and rows["query"] == 1000


def test_captions_follow_the_settings():
    words = ["method=vtph", "backbone=clip_vit_b32"]
    texts = describe_texts(compose([*words, "dataset=coco", "data.captions=first"]))
    assert texts["caption_train"] == texts["caption_eval"] == "fixed"
    noisy = describe_texts(compose([*words, "dataset=flickr25k", "data.caption_noise=0.3"]))
    assert noisy["caption_train"] == "fixed; of 30% of the rows shuffled among them"
    assert set(describe_texts(compose(["method=csq", "dataset=coco"])).values()) == {None}
    mat = describe_texts(compose([*words, "dataset=mat"]))
    assert mat["caption_eval"] == "fixed" and mat["caption_train"] is None
    assert mat["text_source"] == "as in caption.mat" and mat["text_words"] == 32
    mini = describe_texts(compose(["method=vtph", "dataset=coco", "backbone=clip_vit_b32",
                                   "backbone.max_words=20"]))  # fmt: skip
    assert mini["text_ids"] == "start 49406, at most 18 tokens, end 49407, then 0"


def test_pixel_says_which_words_it_hides():
    pixel = describe_texts(compose(["method=pixel", "dataset=creatures_zeroshot"]))
    assert pixel["tokeniser"] == "words of the texts"
    assert pixel["caption_train"].startswith("20.8 % of tokens masked and 1.5 % replaced at every")
