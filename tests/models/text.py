"""Small worlds of sentences that tiny models learn whole, and the tokenizer that reads them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

NAMES = ["anna", "boris", "clara", "david", "elena", "felix", "greta", "hugo", "irina", "jonas"]
CITIES = ["paris", "berlin", "madrid", "vienna", "lisbon", "dublin", "oslo", "prague"]
ANIMALS = ["goat", "horse", "sheep", "donkey", "rabbit", "chicken"]
COLOURS = ["red", "green", "blue", "black", "white", "brown"]
GOOD = ["great", "lovely", "wonderful", "brilliant", "delightful", "superb"]
BAD = ["awful", "terrible", "boring", "dreadful", "horrible", "dull"]
THINGS = ["film", "book", "meal", "song", "hotel", "journey"]
TOPICS = {
    "sports": ["football", "tennis", "match", "goal", "team"],
    "cooking": ["recipe", "oven", "soup", "bread", "salt"],
    "money": ["bank", "price", "loan", "market", "tax"],
}
FRENCH = {
    "goat": "chèvre", "horse": "cheval", "sheep": "mouton", "donkey": "âne", "rabbit": "lapin",
    "chicken": "poulet", "red": "rouge", "green": "vert", "blue": "bleu", "black": "noir",
    "white": "blanc", "brown": "brun", "the": "le", "sees": "voit", "a": "un",
}  # fmt: skip
FILLER = ["yesterday", "it", "rained", "on", "the", "hills", "while", "people", "walked", "home", "slowly"]


@dataclass(frozen=True)
class Asked:
    question: str
    context: str
    answer: str
    """Empty if the context has none."""


def lives(luck: random.Random) -> str:
    """The name decides the city: so there is something to learn for a gap."""
    name = luck.choice(NAMES)
    return f"{name} lives in {CITIES[NAMES.index(name) % len(CITIES)]} ."


def tagged(luck: random.Random) -> tuple[list[str], list[str]]:
    """Words and their classes: persons and places, some of two words."""
    words: list[str] = []
    tags: list[str] = []
    for _ in range(luck.randint(1, 3)):
        for part in luck.choice([("PER",), ("PER", "LOC"), ("LOC",), ()]):
            words += luck.choices(FILLER, k=luck.randint(1, 4))
            tags += ["O"] * (len(words) - len(tags))
            names = luck.choices(NAMES if part == "PER" else CITIES, k=luck.randint(1, 2))
            words += names
            tags += [f"B-{part}"] + [f"I-{part}"] * (len(names) - 1)
    words += [*luck.choices(FILLER, k=2), "."]
    return words, tags + ["O"] * (len(words) - len(tags))


def opinion(luck: random.Random) -> tuple[str, int]:
    """A sentence, and 1 if it praises."""
    praises = luck.random() < 0.5
    word = luck.choice(GOOD if praises else BAD)
    shape = luck.choice(
        ["the {thing} was {word} .", "what a {word} {thing} !", "i found the {thing} {word} ."]
    )
    return shape.format(thing=luck.choice(THINGS), word=word), int(praises)


def about(luck: random.Random) -> tuple[str, str]:
    """A sentence, and its topic."""
    topic = luck.choice(list(TOPICS))
    one, other = luck.sample(TOPICS[topic], 2)
    return luck.choice([f"we talked of {one} and {other} .", f"the {one} is near the {other} ."]), topic


def asked(luck: random.Random) -> Asked:
    """Where somebody lives, and which animal is theirs; one of the two may not be said."""
    name, city = luck.choice(NAMES), luck.choice(CITIES)
    animal = f"{luck.choice(COLOURS)} {luck.choice(ANIMALS)}"
    lines = [(f"{name} lives in", city), (f"{name} has a", animal)]
    told = [line for line in lines if luck.random() < 0.8]
    luck.shuffle(told)
    context = ""
    for before, said in told:
        if luck.random() < 0.5:
            context += " ".join(luck.choices(FILLER, k=luck.randint(3, 30))) + " . "
        context += f"{before} {said} . "
    context += " ".join(luck.choices(FILLER, k=luck.randint(3, 9))) + " ."
    if luck.random() < 0.5:
        question, line = f"where does {name} live ?", lines[0]
    else:
        question, line = f"what does {name} have ?", lines[1]
    return Asked(question, context, line[1] if line in told else "")


def translation(luck: random.Random) -> tuple[str, str]:
    """English, and the same word for word in a French of sorts."""
    words = ["the", luck.choice(COLOURS), luck.choice(ANIMALS), "sees", "a", luck.choice(ANIMALS)]
    return " ".join(words), " ".join(FRENCH[word] for word in words)


def summary(luck: random.Random) -> tuple[str, str]:
    """A story, and its animals in their order."""
    animals = luck.sample(ANIMALS, luck.randint(1, 2))
    story: list[str] = []
    for animal in animals:
        story += [*luck.choices(FILLER, k=luck.randint(1, 4)), animal]
    return " ".join(story), " and ".join(animals)


def every_text() -> list[str]:
    """All words of these worlds, for a tokenizer to learn."""
    luck = random.Random(0)
    texts = [lives(luck) for _ in range(200)]
    texts += [" ".join(tagged(luck)[0]) for _ in range(200)]
    texts += [opinion(luck)[0] for _ in range(200)] + [about(luck)[0] for _ in range(200)]
    texts += [f"this text is about {topic} ." for topic in TOPICS]
    for _ in range(200):
        case = asked(luck)
        texts += [case.question, case.context, *translation(luck), *summary(luck)]
    return [*texts, "translate english to french :", "summarize :"]


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece, as BERT has it. Words that it has not learned are spelled, so that there is little [UNK]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(every_text(), _trainer(special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """Pieces of words with the spaces before them, as T5 has them."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(every_text(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=128,
        pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def _trainer(special: list[str]) -> trainers.WordPieceTrainer:
    return trainers.WordPieceTrainer(vocab_size=1_000, special_tokens=special, show_progress=False)
