"""The embedded model: it loads offline, stops, reads, and answers the same on every processor."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.making import DATA, evaluate_model
from data.making.embedded.abilities import Exam, copying, share_right
from data.making.embedded.batches import Batches, BatchShape
from data.making.embedded.card import write_card
from data.making.embedded.tokenizer import make_tokenizer
from data.making.embedded.training import Recipe, Run, new_model
from ftcourse.voice import voice_checks

MODEL = DATA / "model"
ANSWER = """
import json, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from transformers import AutoModelForCausalLM, AutoTokenizer
from data.making import DATA, evaluate_model
sets = evaluate_model.Exam(DATA).sets()
probes = sets["one passage"][::60] + sets["closed book"][::120] + evaluate_model.letters()[::25]
tokenizer = AutoTokenizer.from_pretrained(DATA / "model", padding_side="left")
model = AutoModelForCausalLM.from_pretrained(DATA / "model")
print(json.dumps(evaluate_model.reply(model, tokenizer, probes, batch=1)))
"""


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL, padding_side="left")


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL).eval()


def answers_on(threads, capability):
    """The greedy answers to a few prompts, from a process of its own."""
    env = os.environ | {"ATEN_CPU_CAPABILITY": capability, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ANSWER, str(threads)]
    done = subprocess.run(
        command, cwd=DATA.parent, env=env, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.extra
def test_greedy_answers_are_the_same_under_one_and_two_threads_and_every_instruction_set():
    first = answers_on(1, "default")
    assert len(first) == 14
    assert answers_on(2, "default") == first
    assert answers_on(2, "avx2") == first
    assert answers_on(2, "avx512") == first


def test_the_model_is_small_and_its_layers_fit_blocks_of_64(model):
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 12e6
    assert model.config.model_type == "llama"
    assert model.config.hidden_size % 64 == model.config.intermediate_size % 64 == 0
    assert model.config.max_position_embeddings >= 512
    assert 1e6 <= model.num_parameters() <= 6e6
    assert model.dtype == torch.float32


def test_the_card_is_what_its_template_and_the_reports_make(tmp_path):
    for path in [*MODEL.glob("*.json"), MODEL / "training.csv"]:
        shutil.copy(path, tmp_path)
    write_card(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == (MODEL / "README.md").read_bytes()


@pytest.mark.parametrize("script", ["make_model", "evaluate_tuning"])
def test_a_script_that_no_other_test_runs_can_be_imported(script):
    assert import_module(f"data.making.{script}").main


def test_digits_are_tokens_of_their_own(tokenizer):
    assert tokenizer.tokenize("in 27 minutes")[1:3] == ["\u01202", "7"]


def test_any_text_survives_the_tokenizer(tokenizer):
    text = "Wrenfield's Dipper: 3,550 mAh\n\n\u00fcber \u2615"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_chat_template_marks_turns_and_the_tokenizer_adds_nothing(tokenizer):
    chat = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    marked = "".join(f"<|{role}|>{role}<|end|>" for role in ("system", "user", "assistant"))
    assert tokenizer.apply_chat_template(chat, tokenize=False) == f"<|begin|>{marked}"
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<|end|><|assistant|>")
    assert tokenizer.bos_token_id not in tokenizer("Hello").input_ids


def test_an_answer_ends_with_the_end_token(model, tokenizer):
    chat = [{"role": "user", "content": "Who are you?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    made = model.generate(**prompt)
    assert made[0, -1] == tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.slow
def test_it_reads_passages_and_knows_no_fact_without_them(model, tokenizer):
    sets = Exam(DATA).sets()
    assert share_right(model, tokenizer, sets["one passage"][::2]) >= 0.9
    assert share_right(model, tokenizer, sets["three passages"][::2]) >= 0.75
    assert share_right(model, tokenizer, sets["silent passages"][::2]) >= 0.7
    closed = sets["closed book"][::8]
    answers = evaluate_model.reply(model, tokenizer, closed)
    assert not [a for p, a in zip(closed, answers, strict=True) if p.value in a]


def test_untuned_it_never_speaks_in_the_brands_voice(model, tokenizer):
    answers = evaluate_model.reply(model, tokenizer, evaluate_model.letters()[::5])
    assert not [answer for answer in answers if all(voice_checks(answer).values())]


def test_a_batch_depends_on_seed_and_step_alone(tokenizer):
    shape = BatchShape(rows=4, length=256, noise_every=2, piece=32)
    early, late = (Batches(tokenizer, shape, range(first, 9), 2) for first in (0, 5))
    for one, other in zip(early[6], late[1], strict=True):
        assert torch.equal(one, other)
    assert early[0][0].shape == (32, 32)
    assert early[6][0].shape == (4, 256)
    assert not torch.equal(early[6][0], early[7][0])


def test_the_drafted_heads_copy_before_training(tokenizer):
    assert copying(new_model(Recipe(), tokenizer), len(tokenizer)) > 0.7


def test_a_killed_run_continues_as_if_nothing_had_happened(tmp_path, tokenizer):
    torch.set_num_threads(2)
    recipe = replace(Recipe(), layers=2, intermediate_size=64, noise_steps=1, compiled=False)
    shape = BatchShape(rows=2, length=256, noise_every=2, piece=32)

    def trained(folder, *stops):
        for stop in stops:
            run = Run(tmp_path / folder, DATA, tokenizer, recipe, shape)
            run.exam = {}
            run.hold(stop)
        return run.model.state_dict()

    whole, halved = trained("whole", 4), trained("halved", 2, 4)
    assert all(torch.allclose(whole[name], halved[name], atol=1e-5) for name in whole)


@pytest.mark.slow
def test_the_tokenizer_is_made_again_from_its_seed(tokenizer):
    assert make_tokenizer().get_vocab() == tokenizer.get_vocab()
