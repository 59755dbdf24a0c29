"""A text as characters, bytes and BPE: the same bits on any number of ranks, and figures that are those worked out by hand."""

import math
import sys
from itertools import pairwise

import h5py
import numpy as np
import pytest

from lepton_mpi.commands import generate
from lepton_mpi.errors import LauncherError
from lepton_mpi.options.config import Config
from lepton_mpi.prepare import options, pipeline
from lepton_mpi.run import checkpoint, checkpoint_folder
from lepton_mpi.run.fit import train
from tests.parallel.test_own_parts import OWN
from tests.parallel.together import check, equal_everywhere, refused, together
from tests.serial import raw_files

# Of each kind, the weights of a gpt after two epochs.
KINDS = {
    "characters": "c03b1b3b74ecbaa4bbfb8a834bb11a4e",
    "bytes": "7e48ae0db20d6ea9e8ef4d8cb16013d0",
    "bpe": "abdb4d3753a4df9a48f0c4b8948cae70",
}
SEPARATOR = "~~"


def _text() -> str:
    """Sentences of a few words, some of them of letters that are several bytes; three documents."""
    random = np.random.default_rng(5)
    words = ["the", "sea", "Öl", "grün", "日本", "was", "calm", "it's", "over", "\U0001f600"]
    lines = [" ".join(random.choice(words, 6)) + ".\n" for _ in range(160)]
    return "".join([*lines[:70], SEPARATOR, *lines[70:140], SEPARATOR, *lines[140:]])


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def data(world, folder, kind):
    """Prepared by all ranks; the file of one process has the same bits."""
    with world.agreeing():
        if world.rank == 0:
            (folder / "a.txt").write_bytes(_text().encode())
    words = [str(folder / "a.txt"), str(folder / "a.h5"), "--stream", "--tokens", kind]
    words += ["--context", "12", "--document-separator", SEPARATOR, "--split", "0.7,0.1,0.2"]
    words += ["--vocabulary", "290"] * (kind == "bpe")
    facts = pipeline.prepare(options.parse(words), world)
    equal_everywhere(world, str(facts))
    with together(world):
        if world.rank == 0:
            one = raw_files.prepare(words[0], folder / "one.h5", *words[2:])
            assert one == facts
            assert raw_files.digest(folder / "a.h5") == raw_files.digest(folder / "one.h5")
    return folder / "a.h5"


def _config(data, **more) -> Config:
    common = {"data": (str(data),), "epochs": 2, "global_batch": 21, "progress": "none"}
    return Config(**common | {"learning_rate": 0.01} | more)


def test_a_gpt_has_the_same_bits_on_any_number_of_ranks(world, data, folder, kind, capsys):
    """These tests run on 1, 2, 3 and 4 ranks; it continues a text by what the checkpoint knows of its tokens alone."""
    own = {"model": {"layers": 1, "width": 16, "heads": 2}}
    runs = str(folder / "runs")
    result = train(_config(data, model="gpt", own=own, checkpoint=runs, dropout=0.1), world)
    equal_everywhere(world, result["weights_digest"])
    with world.agreeing():
        if world.rank == 0:
            data.unlink()
            (folder / "a.txt").unlink()
    prompt = "the sea Ö"

    def written(seed: int) -> str:
        capsys.readouterr()
        how = {"tokens": 30, "top_k": 9, "seed": seed}
        generate.write_text(generate.Options(checkpoint=runs, prompt=prompt, **how), world)
        return capsys.readouterr().out.partition("whole\n")[2]

    texts = [written(seed) for seed in (3, 3, 4)]
    with together(world):
        assert result["weights_digest"] == KINDS[kind]
        assert texts[0] == texts[1]
        if world.rank == 0:
            assert texts[0] != texts[2] and texts[0].startswith(prompt)
            assert len(texts[0]) > len(prompt) + (20 if kind == "bpe" else 10)


def test_figures_are_those_worked_out_by_hand(world, data, folder):
    """Of the test split: nats by token, perplexity, and bits by byte of the text; of a model of token pairs.

    Every token counts once but for those with which a split or a document begins.
    """
    config = _config(data, model=f"{OWN}/bigram.py:Bigram", checkpoint=str(folder / "runs"))
    result = train(config, world)
    with together(world):
        if world.rank == 0:
            saved = checkpoint.read(checkpoint_folder.newest_whole(folder / "runs")[0])
            table = saved.layout.views(saved.parameters)["table"]
            tokens, begins = _tokens_of_test(data)
            assert _text().encode().endswith(b"".join(text for _, text in tokens))
            assert len(begins) == 2
            nats = right = count = byte_count = 0
            for place, ((last, _), (wanted, text)) in enumerate(pairwise(tokens), 1):
                if place in begins:
                    continue
                logits = [float(logit) for logit in table[last]]
                nats += math.log(sum(map(math.exp, logits))) - logits[wanted]
                right += logits[wanted] == max(logits)
                count, byte_count = count + 1, byte_count + len(text)
            bits_per_byte = nats / math.log(2) / byte_count
            assert result["test_loss"] == pytest.approx(nats / count, rel=1e-5)
            assert result["test_perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-5)
            assert result["test_bits_per_byte"] == pytest.approx(bits_per_byte, rel=1e-5)
            assert result["test_accuracy"] == pytest.approx(right / count, abs=1e-9)


def _tokens_of_test(data) -> tuple[list[tuple[int, bytes]], set[int]]:
    """Ids and texts of the tokens of the test split, in their order; those with which a document begins."""
    with h5py.File(data) as file:
        ids, begins = (file[f"test/{name}"][()].tolist() for name in ("tokens", "document_starts"))
        ends = file["vocabulary/ends"][()].tolist()
        text = file["vocabulary/bytes"][()].tobytes()
    texts = [text[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    return [(token, texts[token]) for token in ids], set(begins)


def test_without_the_library_all_ranks_say_so(world, folder, monkeypatch):
    """Whoever of them would have read the text."""
    with world.agreeing():
        if world.rank == 0:
            (folder / "a.txt").write_text(_text())
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    chosen = options.parse([str(folder / "a.txt"), str(folder / "a.h5"), "--tokens", "bpe"])
    with refused(world, LauncherError, "pip install 'tokenizers>=0.21'"):
        pipeline.prepare(chosen, world)
    check(world, not (folder / "a.h5").exists())
