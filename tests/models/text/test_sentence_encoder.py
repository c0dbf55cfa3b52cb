"""Text encoders on word vectors: a random BERT, one from a folder, a CLIP; learned words."""

from __future__ import annotations

import pytest
import torch

from models.text.sentence_encoder import EncoderConfig, LearnedWords, build_sentence_encoder
from utils.errors import UserError

TEXTS = ["it is red", "it has two horns"]
CLIP = {"kind": "clip", "weights": "models/backbones/clip_mini.safetensors"}
SMALL = {"layers": 1, "width": 8, "heads": 2}


def encode(encoder, text, padding=0):
    ids = torch.tensor([[*encoder.begin, *encoder.tokenize(text)] + [0] * padding])
    hidden = torch.zeros(ids.shape, dtype=torch.bool)
    hidden[:, ids.shape[1] - padding :] = padding > 0
    return ids, encoder(encoder.words(ids), hidden)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """A BERT of three layers with a WordPiece vocabulary, as Hugging Face keeps them."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, "it", "is", "has", "two", "red", "horn", "##s"]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"word{n}" for n in range(9))]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    network = BertModel(BertConfig(vocab_size=21, num_hidden_layers=3, **sizes))
    network.save_pretrained(folder)
    return folder, network


def test_a_random_bert_has_the_words_of_its_texts():
    encoder = build_sentence_encoder(EncoderConfig(**SMALL), TEXTS).eval()
    assert encoder.words.num_embeddings == 2 + len({w for text in TEXTS for w in text.split()})
    assert encoder.width == 8 and encoder.mask_id == 1 and encoder.plain == 2
    ids, out = encode(encoder, "two horns")
    assert out.shape == (1, 2, 8) and int(ids.min()) >= encoder.plain
    padded = encode(encoder, "two horns", padding=3)[1]
    torch.testing.assert_close(padded[:, :2], out)


def test_six_layers_as_released_unless_told():
    encoder = build_sentence_encoder(EncoderConfig(width=8, heads=2), TEXTS)
    assert len(encoder.network.encoder.layer) == 6 and encoder.network.pooler is None


@pytest.mark.parametrize("layers", [None, 2])
def test_a_bert_from_a_folder_gives_what_transformers_gives(bert_folder, layers):
    folder, network = bert_folder
    encoder = build_sentence_encoder(
        EncoderConfig(weights=str(folder), layers=layers), TEXTS
    ).eval()
    ids, out = encode(encoder, "it has two horns")
    assert ids.tolist() == [[5, 7, 8, 10, 11]]
    with torch.no_grad():
        states = network.eval()(input_ids=ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(out, states[layers or 3])
    assert encoder.mask_id == 4 and encoder.plain == 5


def test_a_clip_gives_what_its_backbone_gives_before_the_projection():
    from models.backbones.open_clip import OpenCLIPConfig, open_clip_backbone

    model = "models/backbones/clip_mini.json"
    encoder = build_sentence_encoder(EncoderConfig(**CLIP), ()).eval()
    backbone = open_clip_backbone(OpenCLIPConfig(model, CLIP["weights"]), ("text",)).eval()
    ids, mask = backbone.tokenize(["a red animal"])
    ids = ids[:, : int((~mask).sum())]
    assert ids[0, :-1].tolist() == [*encoder.begin, *encoder.tokenize("a red animal")]
    with torch.no_grad():
        wanted = backbone.encode_text(ids, torch.zeros_like(ids, dtype=torch.bool), tokens=True)
        out = encoder(encoder.words(ids), torch.zeros_like(ids, dtype=torch.bool))
    projected = out @ backbone.text.text_projection
    torch.testing.assert_close(projected, wanted.tokens)


@pytest.mark.parametrize(
    ("keys", "learned", "trains"),
    [
        (SMALL, False, True),
        (SMALL, True, True),
        (CLIP, False, True),
        (CLIP, True, False),
        ({**CLIP, "train": True}, True, True),
        ({**SMALL, "train": False}, False, False),
    ],
)
def test_a_pretrained_encoder_stays_as_it_is_under_a_learned_prompt(keys, learned, trains):
    encoder = build_sentence_encoder(EncoderConfig(**keys), TEXTS, learned_prompt=learned)
    assert {p.requires_grad for p in encoder.parameters()} == {trains}


def test_learned_words_come_after_the_vocabulary():
    table, own = torch.nn.Embedding(5, 3), LearnedWords(2, 3)
    ids = torch.tensor([[0, 4, 5, 6]])
    wanted = torch.stack([table.weight[0], table.weight[4], *own.vectors])
    torch.testing.assert_close(own(ids, table)[0], wanted)
    own(ids, table).sum().backward()
    assert bool((own.vectors.grad != 0).all())
    none = LearnedWords(0, 3)
    assert list(none.parameters()) == []
    torch.testing.assert_close(none(ids[:, :2], table), table(ids[:, :2]))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"width": 10, "heads": 3}, "heads=3 does not divide model.text.width=10"),
        ({**SMALL, "layers": 0}, "layers=0 is not accepted"),
        ({"weights": "no/such folder"}, "is neither a folder nor to be had"),
    ],
)
def test_refusals(keys, message, monkeypatch):
    monkeypatch.setattr("models.text.sentence_encoder.hub_file", lambda *_: None)
    with pytest.raises(UserError, match=message):
        build_sentence_encoder(EncoderConfig(**keys), TEXTS)


def test_folders_that_hold_something_else(bert_folder, tmp_path):
    folder, _ = bert_folder
    with pytest.raises(UserError, match="1 to 3 of this BERT's layers"):
        build_sentence_encoder(EncoderConfig(weights=str(folder), layers=4), TEXTS)
    with pytest.raises(UserError, match="cannot be read as a BERT"):
        build_sentence_encoder(EncoderConfig(weights=str(tmp_path)), TEXTS)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="holds a 'gpt2', but a BERT is needed"):
        build_sentence_encoder(EncoderConfig(weights=str(tmp_path)), TEXTS)
