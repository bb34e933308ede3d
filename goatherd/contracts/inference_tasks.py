"""The tasks that models do: for each one what goes in, its parameters, and what comes out.

Names and shapes are Hugging Face's (`huggingface_hub` 2.4, `inference/_generated/types`). A text of a caller
is one input; a list of texts is as many inputs, each with a result of its own.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    TypeAdapter,
    field_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from goatherd.contracts.model import Contract
from goatherd.contracts.search import SearchAnswer, SearchQuery

MOST_CHARS = 1_000_000
"""Of one text. What a model's window can't hold is cut or refused by the model, as its task says."""


class Task(StrEnum):
    FILL_MASK = "fill-mask"
    SUMMARIZATION = "summarization"
    QUESTION_ANSWERING = "question-answering"
    TABLE_QUESTION_ANSWERING = "table-question-answering"
    SENTENCE_SIMILARITY = "sentence-similarity"
    TEXT_CLASSIFICATION = "text-classification"
    TEXT_GENERATION = "text-generation"
    TEXT2TEXT_GENERATION = "text2text-generation"
    TOKEN_CLASSIFICATION = "token-classification"
    TRANSLATION = "translation"
    ZERO_SHOT_CLASSIFICATION = "zero-shot-classification"
    CONVERSATIONAL = "conversational"
    FEATURE_EXTRACTION = "feature-extraction"
    IMAGE_CLASSIFICATION = "image-classification"
    OBJECT_DETECTION = "object-detection"
    IMAGE_SEGMENTATION = "image-segmentation"
    TEXT_TO_IMAGE = "text-to-image"
    AUTOMATIC_SPEECH_RECOGNITION = "automatic-speech-recognition"
    AUDIO_CLASSIFICATION = "audio-classification"
    TEXT_TO_SPEECH = "text-to-speech"
    TENSORS = "tensors"
    """Ours: a graph's own inputs and outputs, by name. For models that have no task of the others."""
    SEARCH = "search"
    """Ours, of no model: an index is searched by the same way as models are asked."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Those that models do: users know no other."""
        shown = handler(schema)
        handler.resolve_ref_schema(shown)["enum"] = [task.value for task in MODEL_TASKS]
        return shown


MODEL_TASKS = tuple(task for task in Task if task is not Task.SEARCH)
"""What models do."""


class Parameters(BaseModel):
    """Base of a task's parameters. Unlike other contracts it refuses what it does not know: a wish that is
    not followed should not look as if it were."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class NoParameters(Parameters):
    """The task has none."""


Text = Annotated[str, StringConstraints(min_length=1, max_length=MOST_CHARS)]
TopK = Annotated[int, Field(ge=1, le=10_000)]
ScoreFunction = Literal["sigmoid", "softmax", "none"]
Truncation = Literal["do_not_truncate", "longest_first", "only_first", "only_second"]


class Media(Contract):
    """An image or a sound, as the file that it came in."""

    model_config = ConfigDict(frozen=True, extra="ignore", val_json_bytes="base64", ser_json_bytes="base64")

    data: bytes = Field(b"", repr=False)
    mime: str | None = Field(None, description="As the sender says it is; what counts is what is in it.")
    claim: str | None = Field(
        None, description="In place of `data` between processes: what the store of payloads has it under."
    )


# -- text in, labels or spans out


class LabelScore(Contract):
    label: str
    score: float


class FillMaskParameters(Parameters):
    targets: list[str] | None = Field(None, min_length=1, description="Only these words are scored.")
    top_k: TopK = 5


class FilledMask(Contract):
    score: float
    token: int
    token_str: str
    sequence: str


class ClassificationParameters(Parameters):
    """Of texts, images and sounds."""

    function_to_apply: ScoreFunction | None = Field(
        None, description="Default: sigmoid for one label or several at once, else softmax."
    )
    top_k: TopK | None = Field(
        None, description="Only so many of the likeliest. All, or 5 of media, if not given."
    )


class TokenClassificationParameters(Parameters):
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "simple"
    ignore_labels: list[str] = ["O"]
    stride: int | None = Field(None, ge=0, description="Tokens that windows of a long text share.")


class TokenClass(Contract):
    """`entity_group` with an aggregation, `entity` (and `index`) without; `start`, `end` are characters."""

    entity_group: str | None = None
    entity: str | None = None
    score: float
    index: int | None = None
    word: str
    start: int | None = None
    end: int | None = None


class ZeroShotParameters(Parameters):
    candidate_labels: list[Text] = Field(min_length=1, max_length=200)
    hypothesis_template: str = "This example is {}."
    multi_label: bool = False

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Labels as one text with commas, as the pipeline takes them too."""
        if isinstance(value, dict) and isinstance(labels := value.get("candidate_labels"), str):
            return {**value, "candidate_labels": [one.strip() for one in labels.split(",") if one.strip()]}
        return value


class QuestionInContext(Contract):
    question: Text
    context: Text


class QuestionAnsweringParameters(Parameters):
    align_to_words: bool = True
    doc_stride: int | None = Field(None, ge=1, description="Tokens that windows of a long context share.")
    handle_impossible_answer: bool = Field(False, description="Whether no answer may be the answer.")
    max_answer_len: int = Field(15, ge=1, description="In tokens.")
    max_question_len: int = Field(64, ge=1, description="In tokens; the rest is cut.")
    max_seq_len: int | None = Field(None, ge=1, description="Question and window together, in tokens.")
    top_k: TopK = 1


class Answer(Contract):
    """`start`, `end` are characters of the context; an empty answer is both 0."""

    answer: str
    score: float
    start: int
    end: int


class TableQuestion(Contract):
    """A question about a table: columns by name, all of the same length. `question` is taken for `query`."""

    query: Text
    table: dict[str, list[str]]

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, value: Any) -> Any:
        if isinstance(value, dict) and "query" not in value and "question" in value:
            return {**value, "query": value["question"]}
        return value

    @model_validator(mode="after")
    def _even(self) -> TableQuestion:
        if not self.table or not next(iter(self.table.values())):
            raise ValueError("the table is empty")
        if len({len(column) for column in self.table.values()}) > 1:
            raise ValueError("the table's columns differ in length")
        return self


class TableQuestionParameters(Parameters):
    padding: Literal["do_not_pad", "longest", "max_length"] | None = None
    sequential: bool = False
    truncation: bool = False


class TableAnswer(Contract):
    answer: str
    coordinates: list[tuple[int, int]] = []
    cells: list[str] = []
    aggregator: str | None = None


# -- text in, numbers out


class FeatureParameters(Parameters):
    """Of embeddings. With `pooling: none` the result is one vector a token, as transformers gives it."""

    normalize: bool | None = Field(None, description="To length 1. Default: as the model's own files say.")
    prompt_name: str | None = Field(None, description="One of the prompts that the model's files name.")
    truncate: bool = Field(True, description="Else a text that is too long is an error.")
    truncation_direction: Literal["left", "right"] = "right"
    pooling: Literal["none", "mean", "cls", "max", "last"] | None = Field(
        None, description="Default: as the model's own files say, or `mean`."
    )
    dimensions: int | None = Field(None, ge=1, description="Only the first so many, normalized again.")


class Vectors(Contract):
    """Numbers of a shape, as they lie in memory: little-endian float32."""

    model_config = ConfigDict(frozen=True, extra="ignore", val_json_bytes="base64", ser_json_bytes="base64")

    shape: list[int] = Field(description="[dimensions], or [tokens, dimensions] without pooling.")
    data: bytes = Field(repr=False)
    tokens: int = Field(0, description="That the input had.")


class SentencePairs(Contract):
    source_sentence: Text
    sentences: list[Text] = Field(min_length=1, max_length=10_000)


# -- text in, text out


class TextGenerationParameters(Parameters):
    """Source of the names: text-generation-inference."""

    adapter_id: None = None
    best_of: Literal[1] | None = None
    decoder_input_details: bool = False
    details: bool = False
    do_sample: bool | None = Field(None, description="Default: whether anything asks for it.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    max_new_tokens: int | None = Field(None, ge=1, le=32_768)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    return_full_text: bool = False
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    stop: list[str] | None = Field(None, max_length=4)
    stop_sequences: list[str] | None = Field(None, max_length=4, description="The older name of `stop`.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    truncate: int | None = Field(None, ge=1, description="Only the last so many tokens of the prompt.")
    watermark: Literal[False] | None = None


class GenerateParameters(Parameters):
    """How a sequence is made: those of transformers' generation that callers may set."""

    do_sample: bool | None = None
    early_stopping: bool | Literal["never"] | None = None
    epsilon_cutoff: float | None = Field(None, ge=0, lt=1)
    eta_cutoff: float | None = Field(None, ge=0, lt=1)
    length_penalty: float | None = None
    max_length: int | None = Field(None, ge=1, le=32_768)
    max_new_tokens: int | None = Field(None, ge=1, le=32_768)
    min_length: int | None = Field(None, ge=0, le=32_768)
    min_new_tokens: int | None = Field(None, ge=0, le=32_768)
    no_repeat_ngram_size: int | None = Field(None, ge=0)
    num_beams: int | None = Field(None, ge=1, le=16)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="Ours: the same seed, the same text.")
    temperature: float | None = Field(None, gt=0, le=10)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    use_cache: bool | None = None


class Text2TextParameters(GenerateParameters):
    """Generation's parameters stand here or in `generate_parameters`; these win."""

    clean_up_tokenization_spaces: bool = False
    generate_parameters: GenerateParameters | None = None
    truncation: Truncation | None = Field(
        None, description="Of what is too long. Default: the end is cut; `do_not_truncate`: an error."
    )


class TranslationParameters(Text2TextParameters):
    src_lang: str | None = None
    tgt_lang: str | None = None


class GeneratedText(Contract):
    generated_text: str


class SummaryText(Contract):
    summary_text: str


class TranslationText(Contract):
    translation_text: str


# -- images


class DetectionParameters(Parameters):
    threshold: float = Field(0.5, ge=0, le=1)


class Box(Contract):
    """In pixels of the image as it came, the origin at the top left."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


class Detection(Contract):
    label: str
    score: float
    box: Box
    keypoints: list[tuple[float, float]] | None = Field(
        None, description="In pixels, of models that find them (faces)."
    )


class SegmentationParameters(Parameters):
    mask_threshold: float = Field(0.5, ge=0, le=1)
    overlap_mask_area_threshold: float = Field(0.5, ge=0, le=1)
    subtask: Literal["instance", "panoptic", "semantic"] | None = None
    threshold: float = Field(0.9, ge=0, le=1)


class Segment(Contract):
    """`mask`: a PNG of one channel, 255 where the segment is, as large as the image; base64."""

    label: str
    score: float | None = None
    mask: str = Field(repr=False)


class TextToImageParameters(Parameters):
    guidance_scale: float | None = Field(None, ge=0, le=50)
    height: int | None = Field(None, ge=8, le=2_048)
    width: int | None = Field(None, ge=8, le=2_048)
    negative_prompt: str | None = None
    num_inference_steps: int | None = Field(None, ge=1, le=200)
    scheduler: str | None = Field(None, description="The name of a scheduler of diffusers.")
    seed: int | None = Field(None, ge=0, le=2**63 - 1)


# -- sounds


class SpeechRecognitionParameters(Parameters):
    generation_parameters: GenerateParameters | None = None
    generate_kwargs: GenerateParameters | None = Field(None, description="The pipeline's name for them.")
    return_timestamps: bool | Literal["word", "char"] = False
    language: str | None = Field(None, description="Ours: as the model names it, `en` or `english`.")
    task: Literal["transcribe", "translate"] | None = Field(None, description="Ours: of multilingual models.")
    temperature: float | None = Field(None, ge=0, le=1, description="Ours: OpenAI's; 0 is greedy.")
    prompt: str | None = Field(None, description="Ours: OpenAI's; what the text goes on from.")
    chunk_length_s: float | None = Field(None, gt=0, le=600)


class SpokenChunk(Contract):
    text: str
    timestamp: tuple[float | None, float | None] = Field(description="Seconds from the sound's beginning.")


class Transcript(Contract):
    text: str
    chunks: list[SpokenChunk] | None = None
    duration_s: float | None = Field(None, description="Ours: of the sound.")
    language: str | None = None


class TextToSpeechParameters(Parameters):
    generation_parameters: GenerateParameters | None = None
    voice: str | None = Field(None, description="Ours: one of those that the model has.")
    speed: float = Field(1.0, ge=0.25, le=4.0, description="Ours: 2 is twice as fast.")
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="Ours: of models that draw.")
    format: Literal["wav", "flac", "mp3", "opus", "pcm"] = Field("wav", description="Ours: of the result.")


# -- tensors

Dtype = Literal["float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "bool"]


class Tensor(Contract):
    """Numbers of a shape, little-endian, row by row."""

    model_config = ConfigDict(frozen=True, extra="ignore", val_json_bytes="base64", ser_json_bytes="base64")

    dtype: Dtype = Field(description="Of each number.", examples=["float32"])
    shape: list[Annotated[int, Field(ge=0)]] = Field(
        description="With the batch's dimension, if the graph has one.", examples=[[1, 43_844, 1]]
    )
    data: bytes = Field(
        repr=False,
        description="The numbers' bytes, little-endian, row by row; in JSON as base64, never as a list.",
        examples=["AACAPwAAAEA="],
    )

    @field_serializer("data", when_used="json")
    def _base64(self, data: bytes) -> str:
        """With `+` and `/`, which everybody reads: Pydantic's own is base64 for URLs, and most decoders drop
        its `-` and `_` without a word. Both are read."""
        return b64encode(data).decode("ascii")


class Tensors(Contract):
    """By the names that the model's signature gives them."""

    tensors: dict[str, Tensor] = Field(
        description='`{"NAME": {"dtype": "float32", "shape": [1, 2], "data": "AACAPwAAAEA="}}`'
    )


class TensorParameters(Parameters):
    signature: str | None = Field(None, description="Default: the model's only or first one.")


# -- talk


class ChatTurn(Contract):
    """One message as a model sees it."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MOST_CHARS)


class Conversation(Contract):
    messages: list[ChatTurn] = Field(min_length=1, max_length=1_000)


class ConversationParameters(Parameters):
    """Source of the names: OpenAI's chat completions."""

    max_tokens: int | None = Field(None, ge=1, le=32_768)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: list[str] | None = Field(None, max_length=4)
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logprobs: bool = False
    passed_on: dict[str, Any] = Field(
        {}, description="What only the provider `openai` knows: tools, response_format and the like."
    )


# -- all of them


@dataclass(frozen=True)
class TaskShape:
    """What a task takes and gives. `grouped`: inputs of several callers go to a worker together: where one
    takes long, it goes by itself, so that it can be cancelled and followed alone."""

    inputs: Any
    parameters: type[Parameters]
    output: Any
    grouped: bool = True
    media: bool = False
    """Whether an input is a file."""

    @cached_property
    def read_inputs(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.inputs)

    @cached_property
    def read_output(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.output)


SHAPES: dict[Task, TaskShape] = {
    Task.FILL_MASK: TaskShape(Text, FillMaskParameters, list[FilledMask] | list[list[FilledMask]]),
    Task.SUMMARIZATION: TaskShape(Text, Text2TextParameters, SummaryText, grouped=False),
    Task.QUESTION_ANSWERING: TaskShape(QuestionInContext, QuestionAnsweringParameters, list[Answer]),
    Task.TABLE_QUESTION_ANSWERING: TaskShape(TableQuestion, TableQuestionParameters, TableAnswer),
    Task.SENTENCE_SIMILARITY: TaskShape(SentencePairs, FeatureParameters, list[float]),
    Task.TEXT_CLASSIFICATION: TaskShape(Text, ClassificationParameters, list[LabelScore]),
    Task.TEXT_GENERATION: TaskShape(Text, TextGenerationParameters, GeneratedText, grouped=False),
    Task.TEXT2TEXT_GENERATION: TaskShape(Text, Text2TextParameters, GeneratedText, grouped=False),
    Task.TOKEN_CLASSIFICATION: TaskShape(Text, TokenClassificationParameters, list[TokenClass]),
    Task.TRANSLATION: TaskShape(Text, TranslationParameters, TranslationText, grouped=False),
    Task.ZERO_SHOT_CLASSIFICATION: TaskShape(Text, ZeroShotParameters, list[LabelScore]),
    Task.CONVERSATIONAL: TaskShape(Conversation, ConversationParameters, GeneratedText, grouped=False),
    Task.FEATURE_EXTRACTION: TaskShape(Text, FeatureParameters, Vectors),
    Task.IMAGE_CLASSIFICATION: TaskShape(Media, ClassificationParameters, list[LabelScore], media=True),
    Task.OBJECT_DETECTION: TaskShape(Media, DetectionParameters, list[Detection], media=True),
    Task.IMAGE_SEGMENTATION: TaskShape(Media, SegmentationParameters, list[Segment], media=True),
    Task.TEXT_TO_IMAGE: TaskShape(Text, TextToImageParameters, Media, grouped=False),
    Task.AUTOMATIC_SPEECH_RECOGNITION: TaskShape(
        Media, SpeechRecognitionParameters, Transcript, grouped=False, media=True
    ),
    Task.AUDIO_CLASSIFICATION: TaskShape(Media, ClassificationParameters, list[LabelScore], media=True),
    Task.TEXT_TO_SPEECH: TaskShape(Text, TextToSpeechParameters, Media, grouped=False),
    Task.TENSORS: TaskShape(Tensors, TensorParameters, Tensors),
    Task.SEARCH: TaskShape(SearchQuery, NoParameters, SearchAnswer),
}

_FOLLOWS: dict[Task, tuple[Task, ...]] = {
    Task.CONVERSATIONAL: (Task.TEXT_GENERATION,),
    Task.TEXT_GENERATION: (Task.CONVERSATIONAL,),
    Task.FEATURE_EXTRACTION: (Task.SENTENCE_SIMILARITY,),
    Task.SENTENCE_SIMILARITY: (Task.FEATURE_EXTRACTION,),
    Task.SUMMARIZATION: (Task.TEXT2TEXT_GENERATION,),
    Task.TRANSLATION: (Task.TEXT2TEXT_GENERATION,),
    Task.TEXT2TEXT_GENERATION: (Task.SUMMARIZATION, Task.TRANSLATION),
    Task.ZERO_SHOT_CLASSIFICATION: (Task.TEXT_CLASSIFICATION,),
}


def tasks_of(task: Task) -> tuple[Task, ...]:
    """All that a model of this task serves: the task, and those that follow from it."""
    return (task, *_FOLLOWS.get(task, ()))
