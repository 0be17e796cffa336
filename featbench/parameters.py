"""Parameters as users write them, `psd(lam=0.5)`: read from text, checked, and handed to a learner or classifier.

A parameter may have several values, `psd(lam=0.2|0.5|1)`. Validation images then decide between them.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from featbench.arguments import is_finite_number, unwrap_scalar
from featbench.errors import FeatbenchError, UnknownNameError, UsageError


@dataclasses.dataclass(frozen=True)
class Choice:
    """A learner or a classifier by name, with the parameters that differ from its defaults.

    A choice is what `--features` and `--classifiers` hold. It is frozen and hashable, so it can be part of a cell, and
    `Choice.read(str(choice)) == choice`.

    Parameters
    ----------
    name : str
        Name under which the learner or classifier is registered, such as ``"psd"``.
    parameters : tuple of (str, value), default ()
        Parameters by name, in alphabetical order, so that equal choices compare equal. A value is a bool, int, float
        or str; a tuple of them stands for several values to choose from.

    Examples
    --------
    >>> Choice.read("psd(updates=2000,lam=0.2|0.5)")
    Choice(name='psd', parameters=(('lam', (0.2, 0.5)), ('updates', 2000)))
    """

    name: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str, parameters: Mapping[str, Any]) -> Choice:
        """Build a choice from a mapping of parameters, in whatever order they come.

        Parameters
        ----------
        name : str
            Name of the learner or classifier.
        parameters : mapping of str to value
            Parameters by name.

        Returns
        -------
        Choice
            The choice, its parameters in alphabetical order.
        """
        return cls(name, tuple(sorted(parameters.items())))

    @classmethod
    def read(cls, text: str) -> Choice:
        """Read a choice from text: `psd`, or `psd(lam=0.5,updates=2000)`.

        Parameters
        ----------
        text : str
            A name, with its parameters in brackets if it has any. `true` and `false` are read as bool, numbers as int
            or float, all else as str. `lam=0.2|0.5` is read as the tuple (0.2, 0.5).

        Returns
        -------
        Choice
            The choice. Names and types are not checked: only the class behind the name knows them.

        Raises
        ------
        UsageError
            If the text has another form, or gives a parameter twice.
        """
        match = re.fullmatch(r"\s*([^()\s]+)\s*(?:\((.*)\))?\s*", text)
        if match is None:
            raise UsageError(f"cannot read {text!r}: write NAME or NAME(parameter=value,…)")
        name, inside = match.groups()
        parameters: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in (inside or "").split(","))):
            key, equals, value = part.partition("=")
            if not equals:
                raise UsageError(f"cannot read {part!r} in {text!r}: write parameter=value")
            if key.strip() in parameters:
                raise UsageError(f"{text!r} gives {key.strip()} twice")
            values = tuple(_read_value(one.strip()) for one in value.split("|"))
            parameters[key.strip()] = values if len(values) > 1 else values[0]
        return cls.of(name, parameters)

    def alternatives(self) -> list[Choice]:
        """List every combination of the values that this choice leaves open.

        Returns
        -------
        list of Choice
            Choices with one value for each parameter, the last parameter varying fastest; a copy of this choice alone
            if no parameter has several values.
        """
        values = [value if isinstance(value, tuple) else (value,) for _, value in self.parameters]
        names = [name for name, _ in self.parameters]
        return [Choice(self.name, tuple(zip(names, chosen, strict=True))) for chosen in itertools.product(*values)]

    def __str__(self) -> str:
        texts = {name: "|".join(map(str, v)) if isinstance(v, tuple) else v for name, v in self.parameters}
        inside = ",".join(f"{name}={text}" for name, text in texts.items())
        return f"{self.name}({inside})" if inside else self.name


class Parametrised:
    """Base of learners, classifiers and refinement settings: a dataclass whose fields are parameters that users set.

    A subclass is a frozen dataclass, each field annotated and with a default. Ranges are checked in `__post_init__`,
    which raises a `ValueError` that says what is needed. A subclass that is not a dataclass has no parameters.

    Attributes
    ----------
    name : str
        What users call it, and what error messages begin with.
    """

    name: ClassVar[str]

    @classmethod
    def create(cls, parameters: Mapping[str, Any]) -> Self:
        """Build an instance from the parameters that a user wrote.

        Parameters
        ----------
        parameters : mapping of str to value
            Parameters by name, one value each; those left out keep their defaults.

        Returns
        -------
        Self
            The instance.

        Raises
        ------
        UnknownNameError
            If a name is not a parameter of this class; it lists those that are.
        UsageError
            If a value has the wrong type, or the class itself refuses it.
        """
        known = {field.name: field for field in cls._list_fields()}
        plain = {name: unwrap_scalar(value) for name, value in parameters.items()}
        for name, value in plain.items():
            if name not in known:
                bare = isinstance(getattr(cls, name, None), bool | int | float | str)
                hint = f"; {name} of {cls.__name__} is no parameter, since it has no annotation" if bare else ""
                raise UnknownNameError(f"parameter of {cls.name}", name, known or ["none"], hint)
            _require_type(cls.name, name, value, known[name].default)
        try:
            return cls(**plain)
        except FeatbenchError:
            raise
        except (ValueError, TypeError) as error:
            raise UsageError(f"{cls.name}: {error}") from error

    @classmethod
    def choice(cls, parameters: Mapping[str, Any]) -> Choice:
        """Return the canonical choice of these parameters: the same text for whatever means the same.

        `lam=1` and `lam=1.0` become one, and defaults are left out, so that both find the same results in the store.

        Parameters
        ----------
        parameters : mapping of str to value
            Parameters by name; a tuple stands for several values.

        Returns
        -------
        Choice
            The choice with every value of its parameter's type, each once, and without defaults.

        Raises
        ------
        UsageError
            If `create` refuses any combination of the values.
        """
        default = cls.create({}).parameters()
        found: dict[str, list[Any]] = {}
        for alternative in Choice.of(cls.name, parameters).alternatives():
            for key, value in cls.create(dict(alternative.parameters)).parameters().items():
                found.setdefault(key, []).append(float(value) if isinstance(default[key], float) else value)
        distinct = {key: tuple(dict.fromkeys(values)) for key, values in found.items()}
        # A tuple of one value would be tried as a choice between alternatives: unwrap it.
        typed = {key: values if len(values) > 1 else values[0] for key, values in distinct.items()}
        return Choice.of(cls.name, {key: value for key, value in typed.items() if value != default[key]})

    @classmethod
    def _list_fields(cls) -> tuple[dataclasses.Field[Any], ...]:
        return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()

    def parameters(self) -> dict[str, Any]:
        """Return every parameter with its value.

        Returns
        -------
        dict of str to value
            All parameters, defaults included, in the order of their declaration.
        """
        return {field.name: getattr(self, field.name) for field in self._list_fields()}


def _read_value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _require_type(owner: str, name: str, value: object, default: object) -> None:
    """Raise a `UsageError` unless a value has the type of its parameter's default.

    The default, not the annotation, gives the type: annotations are strings here, and may name what is not imported.
    """
    if default is dataclasses.MISSING or default is None:
        return
    # bool is asked first, since a bool is an int to isinstance: updates=true must not pass as updates=1.
    if isinstance(default, bool):
        fits, kind = isinstance(value, bool), "a bool"
    elif isinstance(default, int):
        fits, kind = isinstance(value, int) and not isinstance(value, bool), "an int"
    elif isinstance(default, float):
        fits, kind = is_finite_number(value), "a finite float" if isinstance(value, float) else "a float"
    else:
        kind = type(default).__name__
        fits, kind = isinstance(value, type(default)), f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    if not fits:
        raise UsageError(f"{owner}: parameter {name} takes {kind}, not {value!r}")
