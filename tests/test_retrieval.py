import contextlib
import json
import re
import sqlite3
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftcourse.errors import CourseError
from ftcourse.files import course_path
from ftcourse.handbook import load_pages, load_questions
from ftcourse.retrieval import (
    BM25,
    Chunk,
    Chunker,
    Page,
    chunk,
    content_words,
    fuse,
    load_encoder,
    mean_reciprocal_rank,
    read_page,
    read_pages,
    recall_at_k,
    stem_words,
)
from ftcourse.retrieval.chunks import one_line, windows
from ftcourse.retrieval.encoder import Encoder
from ftcourse.retrieval.scores import MeanRank

PAGE = "---\nid: wren-flight\naccess: public\nedition: 1\n---\n\n# Wren: flight\n\nIt flies.\n"
WORDS = st.lists(st.sampled_from(["wren", "flies", "26", "minutes", "Höhe", "the", "E17"]))
TEXT = WORDS.map(" ".join).filter(str.strip)


def page(text, **changes):
    return Page(
        **{"id": "a", "title": "A", "text": text, "access": "public", "edition": 1} | changes
    )


@pytest.fixture(scope="module")
def pages():
    return read_pages(course_path("data/handbook/edition-1"))


@pytest.fixture(scope="module")
def questions():
    rows = [load_questions(passages=False, wording=wording) for wording in range(3)]
    return [row for wording in rows for row in wording]


@pytest.fixture(scope="module")
def embed():
    return load_encoder("embedded")


# Pages


def test_a_page_is_read_without_its_front_matter(tmp_path):
    (tmp_path / "a.md").write_text("\ufeff" + PAGE, encoding="utf-8")
    found = read_page(tmp_path / "a.md")
    assert (found.id, found.access, found.edition) == ("wren-flight", "public", 1)
    assert found.title == "Wren: flight"
    assert found.text == "# Wren: flight\n\nIt flies."


def test_windows_line_ends_make_no_difference(tmp_path):
    (tmp_path / "a.md").write_bytes(PAGE.replace("\n", "\r\n").encode())
    assert read_page(tmp_path / "a.md").text == "# Wren: flight\n\nIt flies."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# Wren\n\nIt flies.\n", "without id, access, edition"),
        ("---\nid: a\naccess: public\n---\ntext", "without edition"),
        ("---\nid: a\naccess: public\nedition: 1\ntext without an end", "without id"),
        (PAGE.replace("public", "Public"), "'Public'"),
        (PAGE.replace("public", "pubic"), "'pubic'"),
        (PAGE.replace("edition: 1", "edition: one"), "edition: one"),
        (PAGE.replace("edition: 1", "edition: 0"), "edition=0"),
        ("---\nid: a\naccess: public\nedition: 1\n---\n\n \n", "nothing after"),
        (PAGE.replace("It", "I\0t"), "text="),
        ("", "without id"),
    ],
)
def test_a_bad_page_is_refused_with_its_file(tmp_path, content, said):
    file = tmp_path / "a.md"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(CourseError) as error:
        read_page(file)
    assert said in error.value.got


def test_a_page_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "a.md").write_bytes(PAGE.encode() + b"\xff\xfe")
    with pytest.raises(CourseError, match="UTF-8"):
        read_pages(tmp_path)


def test_a_page_that_is_missing_and_a_folder_without_pages_are_refused(tmp_path):
    with pytest.raises(CourseError, match="No such file"):
        read_page(tmp_path / "none.md")
    with pytest.raises(CourseError, match="without any"):
        read_pages(tmp_path)
    with pytest.raises(CourseError, match="without any"):
        read_pages(tmp_path / "none")


def test_two_pages_with_one_id_are_refused(tmp_path):
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(PAGE, encoding="utf-8")
    with pytest.raises(CourseError, match="two pages 'wren-flight' of edition 1"):
        read_pages(tmp_path)


def test_labels_are_the_readers_own(tmp_path):
    (tmp_path / "a.md").write_text(PAGE.replace("public", "team"), encoding="utf-8")
    assert read_page(tmp_path / "a.md", labels={"team"}).access == "team"


@pytest.mark.parametrize(
    "changes", [{"id": ""}, {"access": None}, {"edition": "1"}, {"edition": True}]
)
def test_a_page_needs_all_its_parts(changes):
    with pytest.raises(CourseError):
        page("text", **changes)


# Chunks


def test_a_whole_page_is_what_a_prompt_quotes(pages):
    quoted = load_pages()
    assert {p.id: chunk(p)[0].text for p in pages} == quoted


@given(TEXT, st.integers(1, 9), st.data())
def test_runs_of_words_lose_nothing_and_invent_nothing(text, length, data):
    overlap = data.draw(st.integers(0, length - 1))
    words, found = text.split(), windows(text.split(), length, overlap)
    joined = [*found[0], *(word for run in found[1:] for word in run[overlap:])]
    assert joined == words
    assert all(a[-overlap:] == b[:overlap] for a, b in pairwise(found) if overlap)
    assert all(len(run) == length for run in found[:-1])
    assert len(found[-1]) > overlap or len(found) == 1


@given(st.lists(TEXT, min_size=1), st.sampled_from(["page", "heading", "paragraph", "sentence"]))
def test_pieces_lose_nothing_and_invent_nothing(texts, by):
    text = "\n\n".join(f"## {text}\n{text}. {text}!" for text in texts)
    found = chunk(page(text), by)
    assert " ".join(c.text for c in found) == one_line(text)
    assert all(c.text for c in found)


def test_each_way_cuts_where_it_says():
    text = "# A\n\nOne flies. Two flies.\n\nThree.\n\n## B\n\nFour."
    cuts = {
        by: [c.text for c in chunk(page(text), by)] for by in ("heading", "paragraph", "sentence")
    }
    assert cuts == {
        "heading": ["A. One flies. Two flies. Three.", "B. Four."],
        "paragraph": ["A.", "One flies. Two flies.", "Three.", "B.", "Four."],
        "sentence": ["A.", "One flies.", "Two flies.", "Three.", "B.", "Four."],
    }


def test_a_chunk_keeps_id_label_and_edition():
    [found] = chunk(page("text", id="b", access="staff", edition=2))
    assert found == Chunk("b", "text", "staff", 2)


@pytest.mark.parametrize(
    "choices",
    [{"length": 0}, {"length": 8, "overlap": 8}, {"overlap": -1}, {"length": 8.0}, {"length": "8"}],
)
def test_a_window_that_never_moves_on_is_refused(choices):
    with pytest.raises(CourseError, match="overlaps by fewer"):
        chunk(page("text"), "words", **choices)
    with pytest.raises(CourseError, match="overlaps by fewer"):
        Chunker("words", **choices)


@pytest.mark.parametrize("by", ["token", None, 3])
def test_an_unknown_way_to_cut_is_refused(by):
    with pytest.raises(CourseError, match="by is one of"):
        chunk(page("text"), by)


def test_what_is_no_page_is_refused():
    with pytest.raises(CourseError, match="page is a value such as"):
        chunk("# Wren")


# Words


def bm25_of_fts5(texts, query):
    """Return SQLite's own score of each text, with our sign; 0 where no word is shared."""
    with contextlib.closing(sqlite3.connect(":memory:")) as base:
        base.execute("create virtual table t using fts5(text, tokenize='porter unicode61')")
        base.executemany("insert into t (rowid, text) values (?, ?)", enumerate(texts))
        match = " OR ".join(f'"{word}"' for word in content_words(query))
        found = dict(base.execute("select rowid, -bm25(t) from t where t match ?", (match,)))
    return [found.get(number, 0.0) for number in range(len(texts))]


def test_bm25_matches_fts5_on_the_handbook_bit_for_bit(questions):
    texts = list(load_pages().values())
    ours = BM25(texts)
    for row in questions[::7]:
        assert ours.scores(row["prompt"]).tolist() == bm25_of_fts5(texts, row["prompt"])


@given(st.lists(TEXT, min_size=1, max_size=6), TEXT)
def test_bm25_matches_fts5_on_any_texts(texts, query):
    # Sums of floats in the same order; a hair of room for another build of SQLite.
    ours, theirs = BM25(texts).scores(query), bm25_of_fts5(texts, query)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def test_bm25_matches_bm25s_up_to_a_factor(questions):
    bm25s = pytest.importorskip("bm25s")
    texts = list(load_pages().values())
    ours = BM25(texts)
    # Its "robertson" has our rarity, but for a floor of 0 in place of 1e-6, and it leaves out the
    # factor k1 + 1, which changes no order. It counts in float32.
    theirs = bm25s.BM25(k1=1.2, b=0.75, method="robertson")
    theirs.index(stem_words(texts), show_progress=False)
    for row in questions[::29]:
        words = " ".join(content_words(row["prompt"]))
        [stems] = stem_words([words])
        known = [stem for stem in stems if ours.texts_with[stem]]
        scores = theirs.get_scores(known)
        np.testing.assert_allclose(ours.scores(words) / 2.2, scores, rtol=1e-5, atol=1e-5)


def test_stems_are_those_of_porter_without_case_and_accents():
    assert stem_words(["Flies, FLYING; the Höhe of E17-b", ""]) == [
        ["fli", "fly", "the", "hohe", "of", "e17", "b"],
        [],
    ]


def test_a_query_of_stop_words_only_keeps_them():
    assert content_words("Who are you?") == ["Who", "are", "you"]


@pytest.mark.parametrize("query", ["", " ", "?!", "\0"])
def test_a_query_without_a_word_is_refused(query):
    with pytest.raises(CourseError, match="A query has a word"):
        BM25(["a text"]).scores(query)


@pytest.mark.parametrize("choices", [{"k1": -1}, {"b": 1.5}, {"k1": float("nan")}])
def test_bm25_refuses_choices_out_of_range(choices):
    with pytest.raises(CourseError, match="k1 is 0 or more"):
        BM25(["a"], **choices)


def test_bm25_needs_texts():
    for texts in ([], "a text"):
        with pytest.raises(CourseError, match="needs texts"):
            BM25(texts)


def test_a_search_in_memory_breaks_ties_by_the_order_of_its_list():
    texts = ["The Wren flies for 26 minutes.", "The Wren flies for 31 minutes.", "a bell", "a kite"]
    assert BM25(texts).search("How many minutes does the Wren fly?") == [0, 1]
    assert BM25(texts[::-1]).search("How many minutes does the Wren fly?") == [2, 3]
    assert BM25(texts).search("nothing shared") == []


# Scores


def test_recall_counts_questions_whose_page_is_among_the_first_k():
    found, wanted = [["a", "b"], ["b", "a"], ["c"]], ["a", "a", "a"]
    assert [recall_at_k(found, wanted, k).successes for k in (1, 2, 9)] == [1, 2, 2]
    assert recall_at_k(found, wanted, 1).count == 3


def test_a_question_on_two_pages_needs_both():
    assert recall_at_k([["a", "b"], ["a", "c"]], [{"a", "b"}, ["a", "b"]], 2).successes == 1


def test_the_reciprocal_rank_is_that_of_the_first_right_page():
    rank = mean_reciprocal_rank([["a"], ["b", "a"], ["b"]], ["a", "a", "a"])
    assert float(rank) == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert rank.interval[0] < rank.mean < rank.interval[1]
    assert "over 3" in repr(rank)


def test_the_interval_of_a_mean_holds_the_true_mean_19_times_of_20():
    rng = np.random.default_rng(0)
    places = rng.integers(1, 5, (400, 60))
    true = np.mean([1 / place for place in range(1, 5)])
    inside = 0
    for row in places:
        found = [["x"] * (place - 1) + ["a"] for place in row]
        low, high = mean_reciprocal_rank(found, ["a"] * 60).interval
        inside += low <= true <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_the_mean_of_one_question_says_nothing():
    assert mean_reciprocal_rank([["a"]], ["a"]) == MeanRank(1.0, (0.0, 1.0), 1)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([], []),
        ([["a"]], ["a", "b"]),
        (["ab"], ["a"]),
        ([[3]], ["a"]),
        ([["a"]], [None]),
        ([["a"]], [[]]),
    ],
)
def test_recall_refuses_what_is_no_search(found, wanted):
    for score in (
        lambda: recall_at_k(found, wanted, 1),
        lambda: mean_reciprocal_rank(found, wanted),
    ):
        with pytest.raises(CourseError):
            score()


@pytest.mark.parametrize("k", [0, -1, "3", 2.0, None, True])
def test_recall_refuses_a_k_that_is_no_number_of_pages(k):
    with pytest.raises(CourseError, match="k is 1 or more"):
        recall_at_k([["a"]], ["a"], k)


def test_fusion_adds_reciprocal_ranks():
    fused = fuse(["a", "b"], ["b", "c"], constant=60)
    assert fused == pytest.approx({"b": 1 / 62 + 1 / 61, "a": 1 / 61, "c": 1 / 62})
    assert list(fused) == ["b", "a", "c"]


@given(st.lists(st.permutations("abcd"), min_size=1, max_size=4))
def test_fusion_does_not_depend_on_the_order_of_rankings(rankings):
    forward, backward = fuse(*rankings), fuse(*rankings[::-1])
    assert forward == pytest.approx(backward)


# The encoder


def test_the_encoder_finds_pages_it_never_read(embed, pages, questions):
    rows = embed([chunk(p)[0].text for p in pages])
    asked = embed([row["prompt"] for row in questions])
    best = (asked @ rows.T).argmax(1)
    score = recall_at_k([[pages[i].id] for i in best], [row["page"] for row in questions], 1)
    assert score.count == 717
    assert score.share > 0.95  # 99 % when it was made; bm25 finds 80 %


def test_vectors_are_rows_of_length_1_whatever_the_batch(embed):
    texts = ["The Wren flies.", "", "x" * 3000, *[f"page {n}" for n in range(300)]]
    rows = embed(texts)
    assert rows.shape == (303, 64)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embed(texts[:1])[0], rows[0], atol=1e-6)
    assert embed([]).shape == (0, 64)


def test_the_name_of_an_encoder_tells_its_weights(tmp_path, embed):
    source = course_path("data/encoder")
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert load_encoder(tmp_path).name == embed.name
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "encoder.safetensors")
    weights["tokens.weight"][0, 0] += 1
    save_file(weights, tmp_path / "encoder.safetensors")
    assert load_encoder(tmp_path).name != embed.name


def test_the_encoder_is_small_and_its_card_has_its_figures(embed):
    folder = course_path("data/encoder")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 450_000
    assert sum(p.numel() for p in embed.encoder.parameters()) == 204_928
    assert embed.name.split()[-1] in (folder / "README.md").read_text(encoding="utf-8")


def test_attention_weighs_tokens_and_a_mask_hides_them():
    torch.manual_seed(0)
    encoder = Encoder(10, 8, 4)
    ids = torch.tensor([[1, 2, 3]])
    short = encoder(ids[:, :2], torch.ones(1, 2))
    hidden = encoder(ids, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(short, hidden)


def test_a_damaged_encoder_is_refused(tmp_path):
    for file in course_path("data/encoder").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"width": 32}), encoding="utf-8")
    with pytest.raises(CourseError, match="that fit"):
        load_encoder(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(b"half")
    with pytest.raises(CourseError, match="that fit"):
        load_encoder(tmp_path)


def test_without_sentence_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(CourseError, match=r"ftcourse\[rag\]"):
        load_encoder("sentence-transformers/all-MiniLM-L6-v2")


def test_a_model_of_sentence_transformers_has_the_same_face(monkeypatch):
    class Model:
        def __init__(self, name, trust_remote_code):
            assert not trust_remote_code
            self.name = name

        def state_dict(self):
            return {"w": torch.ones(2)}

        def encode(self, texts, **choices):
            assert choices["normalize_embeddings"]
            return [[1.0, 0.0]] * len(texts)

    fake = type("module", (), {"SentenceTransformer": Model})
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", fake)
    embed = load_encoder("sentence-transformers/all-MiniLM-L6-v2")
    assert embed(["a", "b"]).dtype == np.float32
    assert embed.name.startswith("sentence-transformers/all-MiniLM-L6-v2 ")


def test_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    from data.making.encoder import training

    recipe = training.Recipe(steps=4)
    whole = training.train(recipe, tmp_path / "whole.pt", every=2)
    save = training.save

    def stop(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, tmp_path / "stopped.pt", every=2)
    monkeypatch.setattr(training, "save", save)
    again = training.train(recipe, tmp_path / "stopped.pt", every=2)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)


def test_the_encoder_learns_from_no_name_of_the_handbook():
    from data.making.encoder.pairs import all_asks, batch
    from data.making.world.names import table

    words = table("words")["handbook"]
    names = {
        name for kind in ("drone", "shop", "plan", "workshop", "supplier") for name in words[kind]
    }
    said = " ".join(text for step in range(20) for pair in batch(0, step) for text in pair)
    assert not [name for name in names if re.search(rf"\b{name}\b", said)]
    assert batch(0, 3) == batch(0, 3) != batch(1, 3)
    left = batch(0, 0, lambda kind, name: [] if name == "price" else all_asks(kind, name))
    assert not re.search("We sell the .* for", " ".join(text for pair in left for text in pair))
