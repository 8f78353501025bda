"""What is asked in a visual chain of thought."""

THINK = "First think which object in the image is most relevant to the question."
BEGINNING = "The object most relevant to the question is"  # of the thought, so that it names one
BEGIN = f'Begin with "{BEGINNING}".'  # to a server, whose answers nobody can begin
WHOLE, PART = "This is the whole image:", "This is the part of it that may help to answer:"
INSTRUCTION = "Answer the question using a single word or phrase."


def thinking(question: str) -> str:
    """What the thought is asked for."""
    return f"{question}\n{THINK}"
