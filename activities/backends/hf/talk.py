"""Models that generate text: `conversational` and `text-generation`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from activities.backends._causal_lm import CausalLM
from activities.backends.hf.loading import Loaded, set_up
from activities.backends.huggingface import HuggingFaceChatModel
from activities.inference_ports import LoadContext, LoadedModel, Runner
from activities.ports import ChatModel
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import WrongTask


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    """A causal language model. One without a chat template is for `text-generation` only.

    Raises:
        ValueError: it is to talk, and has no chat template.
    """
    set_up(context)
    model = CausalLM.load(folder, spec)
    if spec.task is Task.CONVERSATIONAL and not model.talks:
        raise ValueError("it has no chat template; set its task to text-generation")
    return LoadedTalk(HuggingFaceChatModel(model, context.executor, spec.limits), spec.task)


class LoadedTalk(Loaded):
    """A model that has a `chat` and no runners."""

    def __init__(self, chat: HuggingFaceChatModel, task: Task) -> None:
        super().__init__(chat.memory_bytes, {}, chat=chat)
        self._talk: HuggingFaceChatModel | None = chat
        other = Task.TEXT_GENERATION if task is Task.CONVERSATIONAL else Task.CONVERSATIONAL
        self._tasks = [task, other] if chat.talks else [Task.TEXT_GENERATION]

    @property
    def tasks(self) -> Sequence[Task]:
        return self._tasks

    def runner(self, task: Task) -> Runner:
        if task in self._tasks:
            raise WrongTask(f"{task} is generated text: it has a chat model, no runner")
        raise WrongTask(f"the model is for {', '.join(self._tasks)}, not for {task}")

    @property
    def chat(self) -> ChatModel | None:
        return self._talk

    async def close(self) -> None:
        if self._talk is not None:
            self._talk.close()
        self._talk = None
        await super().close()
