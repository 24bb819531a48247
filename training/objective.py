"""What a run minimises: the recipe's losses, each times its weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from training.distill import Key, Teacher, cosine_loss, relational_loss, scores_loss, similarity_loss, squared_loss, tags_loss
from training.losses import LogitScale, contrastive_loss
from training.towers.tower import unit


class ContrastiveTerm(BaseModel):
    """Symmetric InfoNCE against the captions, by the rules of the recipe's `[loss]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["contrastive"] = "contrastive"
    weight: float = Field(1.0, gt=0, description="how often it counts in the sum")
    negatives: str | None = Field(None, description="further texts, one a line, that an item is told apart from; none is said of it")
    spared: int = Field(20, ge=0, description="of the negatives, those nearest to an item's caption, which may be true of it")


class DistillTerm(BaseModel):
    """Follow the vectors of another model. Items that it has none for do not count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["distill"]
    weight: float = Field(1.0, gt=0, description="how often it counts in the sum")
    teacher: str = Field(
        description=".npz with `ids` and `vectors`, or .npy beside a file of ids; relative to the media directory, or to that of the towers"
    )
    ids: str | None = Field(None, description="for .npy: one id a line; left out: NAME.ids.txt")
    key: Key = Field("id", description="the manifest's column that the ids are found in")
    how: Literal["cosine", "squared", "tags", "relational", "kl", "scores"] = Field(
        "cosine",
        description="cosine: the same vector (through a learned projection where lengths differ); squared: the same values (likewise), "
        "beside their mean square; tags: the teacher's scores in 0..1, by a learned layer of logits; relational: the same cosines between "
        "items; kl: the same distribution over similarities; scores: the teacher is a tagger, its vectors the scores of `texts`, and the "
        "tower shall choose among those texts as it does",
    )
    of: Literal["vector", "features"] = Field(
        "vector", description="what follows: the tower's vector, or the features behind its head (for cosine, squared and tags)"
    )
    sure: bool = Field(False, description="for cosine: the length of a teacher's vector says how much the item counts")
    temperature: float = Field(0.05, gt=0, description="of the distributions, for kl and scores")
    texts: str | None = Field(None, description="for scores: one text a line, in the order of the teacher's scores")
    against: Literal["items", "captions"] = Field(
        "items", description="for kl: similarities to the other items, or to the captions, when the teacher lives in this space"
    )

    @model_validator(mode="after")
    def _texts_go_with_scores(self) -> Self:
        if (self.texts is not None) != (self.how == "scores"):
            raise ValueError('texts is for how = "scores", which needs it')
        if self.of == "features" and self.how not in {"cosine", "squared", "tags"}:
            raise ValueError('of = "features" is for cosine, squared and tags')
        if self.sure and self.how != "cosine":
            raise ValueError('sure is for how = "cosine"')
        return self


_RARE = -5.0
"""First logit of a tag: nearly every class is absent from nearly every item."""

LossTerm = Annotated[ContrastiveTerm | DistillTerm, Field(discriminator="kind")]


class Objective(nn.Module):
    """The weighted sum over a whole batch. Owns what is learned beside the tower: the logit scale and teachers' projections."""

    def __init__(
        self,
        terms: Sequence[LossTerm],
        teachers: Sequence[Teacher],
        *,
        dimension: int,
        features: int | None = None,
        temperature: float,
        texts: Mapping[str, Tensor] | None = None,
    ) -> None:
        """``teachers``: one for each distilling term, in their order. ``texts``: a term's file of texts → ``(m, d)`` unit rows.

        ``features``: how many a tower has that gives its features too.

        Raises `ValueError` where a teacher's length cannot be used.
        """
        super().__init__()
        self.scale = LogitScale(temperature)
        self.projections = nn.ModuleDict()
        self._terms = tuple(terms)
        self._dimension = dimension
        waiting = iter(teachers)
        self._teachers = [next(waiting) if isinstance(term, DistillTerm) else None for term in self._terms]
        for number, (term, teacher) in enumerate(zip(self._terms, self._teachers, strict=True)):
            if isinstance(term, ContrastiveTerm) and term.negatives is not None:
                self.register_buffer(f"texts_{number}", (texts or {})[term.negatives], persistent=False)
            elif isinstance(term, DistillTerm) and term.texts is not None and teacher is not None:
                rows = (texts or {})[term.texts]
                if len(rows) != teacher.dimension:
                    raise ValueError(f"{term.teacher} has scores of {teacher.dimension} texts and {term.texts} has {len(rows)}")
                self.register_buffer(f"texts_{number}", rows, persistent=False)
            elif isinstance(term, DistillTerm) and teacher is not None:
                self._project(number, term, teacher.dimension, dimension if term.of == "vector" else features)

    def _project(self, number: int, term: DistillTerm, taught: int, mine: int | None) -> None:
        if mine is None:
            raise ValueError(f'{term.teacher}: of = "features" needs a tower with features and a head')
        if term.how == "kl" and term.against == "captions" and taught != mine:
            raise ValueError(f"{term.teacher} has vectors of {taught} values and the captions of {mine}")
        if term.how == "tags":
            self.projections[str(number)] = tags = nn.Linear(mine, taught)
            nn.init.constant_(tags.bias, _RARE)
        elif term.how in {"cosine", "squared"} and taught != mine:
            self.projections[str(number)] = nn.Linear(mine, taught, bias=False)

    def learned(self) -> dict[str, Tensor]:
        """The layers through which the tower follows its teachers, by the number of the loss: `1.weight`, `1.bias`."""
        return {name: tensor.detach().to("cpu").contiguous() for name, tensor in self.projections.state_dict().items()}

    @property
    def wants_features(self) -> bool:
        """Whether the rows it is given must be the vector and, behind it, the features."""
        return any(isinstance(term, DistillTerm) and term.of == "features" for term in self._terms)

    def named_trained(self) -> list[tuple[str, nn.Parameter]]:
        """The logit scale under its name in recipes, and the projections, which are no part of the tower."""
        return [("logit_scale", self.scale.log), *((f"losses.{name}", p) for name, p in self.projections.named_parameters())]

    def forward(self, media: Tensor, text: Tensor, together: Tensor, ids: Sequence[str]) -> tuple[Tensor, dict[str, float]]:
        """``media``, ``text``: ``(n, d)`` unit rows; ``together``: ``(n, n)`` as for `positives`. The sum, and each part by name.

        Where it `wants_features`, ``media`` is ``(n, d + features)``.
        """
        vectors, features = media[:, : self._dimension], media[:, self._dimension :]
        total = torch.zeros((), device=media.device)
        parts: dict[str, float] = {}
        for number, (term, teacher) in enumerate(zip(self._terms, self._teachers, strict=True)):
            if isinstance(term, ContrastiveTerm):
                name: str = term.kind
                part = self._contrasted(number, term, vectors, text, together)
            else:
                assert teacher is not None
                name = term.how
                part = self._distilled(number, term, teacher, features if term.of == "features" else vectors, text, ids)
            parts[name if name not in parts else f"{name}.{number}"] = part.item()
            total = part if len(self._terms) == 1 and term.weight == 1 else total + term.weight * part
        return total, parts

    def _contrasted(self, number: int, term: ContrastiveTerm, media: Tensor, text: Tensor, together: Tensor) -> Tensor:
        """Of the items that something is said of."""
        said = together.diagonal() > 0
        if not said.all():
            media, text, together = media[said], text[said], together[said][:, said]
        if len(media) == 0:
            return media.sum() * 0.0
        wrong = spared = None
        if term.negatives is not None:
            texts = self.get_buffer(f"texts_{number}")
            near = (text @ texts.T).topk(term.spared, dim=1).indices  # (n, spared)
            wrong = media @ texts.T  # (n, m)
            spared = torch.zeros_like(wrong, dtype=torch.bool).scatter(1, near, value=True)
        return contrastive_loss(media, text, self.scale(), together, wrong, spared)

    def _distilled(self, number: int, term: DistillTerm, teacher: Teacher, media: Tensor, text: Tensor, ids: Sequence[str]) -> Tensor:
        known, taught = (tensor.to(media.device) for tensor in teacher.of(ids))
        student = media[known]
        to_captions = term.how == "kl" and term.against == "captions"
        if len(known) < (2 if term.how in {"relational", "kl"} and not to_captions else 1):
            return student.sum() * 0.0  # nothing to compare with in this batch
        name = str(number)
        followed = self.projections[name](student) if name in self.projections else student
        if term.how == "squared":
            return squared_loss(followed, taught)
        if term.how == "tags":
            return tags_loss(followed, taught.clamp(0, 1))
        if term.how == "scores":
            return scores_loss(student, taught, term.temperature, self.get_buffer(f"texts_{number}"))
        sure = taught.norm(dim=1) if term.sure else None
        taught = unit(taught)
        if term.how == "relational":
            return relational_loss(student, taught)
        if term.how == "kl":
            return similarity_loss(student, taught, term.temperature, text if to_captions else None)
        return cosine_loss(unit(followed), taught, sure)
