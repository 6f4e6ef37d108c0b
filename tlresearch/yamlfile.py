"""YAML as people write it: the safe loader, with YAML 1.2's numbers and no duplicate keys."""

import re
from pathlib import Path
from typing import Any

import yaml

from tlresearch.errors import UserError


class _Loader(yaml.SafeLoader):
    """PyYAML reads `1e3`, `1e7` and `1.0e7` as text; this one reads numbers."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key given twice is an error, not a choice."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word or a number", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag not in _NUMBERS]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.2 core schema, section 10.3.2
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_INT = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"


def _construct_int(loader: _Loader, node: Any) -> int:
    """In YAML 1.2 `010` is 10 and `1:30` a text."""
    text = loader.construct_scalar(node)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(rf"^(?:{_INT})$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(rf"^(?:{_FLOAT})$"), list("-+.0123456789")
)


def parse(text: str, where: str) -> Any:
    """The value of a YAML text.

    Args:
        text: the text.
        where: the file or argument it came from, for the error.

    Raises:
        UserError: it is no YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: no objects, no code
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(
            f"{where}{line}: this is not valid YAML ({problem}); mend that line"
        ) from None
    except (RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{where}: this cannot be read as YAML ({error})") from None


def read(path: Path) -> Any:
    """The value of a YAML file.

    Raises:
        UserError: the file cannot be read, or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such experiment file; `tlresearch list experiments` "
            "shows those here"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path}: this is a folder; name an experiment file in it") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: this is not a UTF-8 text file; expected YAML") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    return parse(text, str(path))
