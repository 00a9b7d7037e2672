"""New ways to ask the first edition's questions, which no text of the corpus holds."""

from data.making.world.handbook import editions, questions
from data.making.world.names import table


def wordings() -> list[dict]:
    """Return three new wordings for each question on the first edition, by its id."""
    asked = [row for row in questions() if row["value"] and row["edition"] == 1]
    return [
        {
            "id": row["id"],
            "wordings": [
                form.format(x=fact.subject) for form in table("wordings")[fact.kind][fact.attribute]
            ],
        }
        for row, fact in zip(asked, editions()[0], strict=True)
    ]
