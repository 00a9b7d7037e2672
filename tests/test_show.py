from ftcourse.chat import encode_dialogue, supervised_text
from ftcourse.show import Tokens, Transcript, show_tokens


def test_a_transcript_sets_questions_and_answers_side_by_side():
    records = [
        {"prompt": "Where is it?", "completion": "There."},
        {"prompt": "W", "completion": "T"},
    ]
    assert repr(Transcript.of(records[:1])) == "asked     Where is it?\nanswered  There."
    assert Transcript.of(records, ["Here."]).turns == (("Where is it?", "Here."),)


def test_tokens_show_the_supervised_ones_in_blue_and_make_up_the_whole_text(tokenizer):
    messages = [
        {"role": "user", "content": "Is <this> it?"},
        {"role": "assistant", "content": "Yes."},
    ]
    example = encode_dialogue(messages, tokenizer)
    shown = show_tokens(example, tokenizer)
    assert "".join(text for text, _ in shown.pieces) == tokenizer.decode(example.input_ids)
    blue = [text for text, supervised in shown.pieces if supervised]
    assert "".join(blue) == supervised_text(example, tokenizer)
    assert shown._repr_html_().count("#0072B2") == len(blue) == example.num_supervised
    assert "<this>" not in shown._repr_html_()


def test_without_colours_brackets_mark_the_supervised_tokens():
    assert repr(Tokens((("Who", False), ("Me", True), (".", True)))) == "Who|[Me]|[.]"
