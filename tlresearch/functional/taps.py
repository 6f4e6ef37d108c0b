"""Intermediate features of any `nn.Module` by dotted module path, without editing the model.

    with tapped(model, ["layer2", "layer3.0.conv1"]) as features:
        logits = model(x)
    z = features["layer2"]

The paths are the names of `model.named_modules()`. Within the block each named module's `forward`
is an attribute of that one object, which hands the output on and keeps a copy; afterwards, also
after an exception, it is as before. So a tap

- works in anybody's loop, in `torch.func.functional_call`, and inside `grad` and `vmap`, where
  block and use of the features stand *within* the function that is mapped (`call_with_taps`
  returns them, as what a mapped function keeps to itself must not be used outside);
- has the values that the module returned even if a later module changes them in place
  (`ReLU(inplace=True)`, `out += shortcut`): it is a copy, and its gradient flows to the model;
- goes through `torch.compile(fullgraph=True)` if the block lies within the compiled function,
  directly, with `functional_call` and with `vmap` around it (torch 2.14). `register_forward_hook`
  does not: its handle breaks the graph, and a model that was compiled before it got hooks runs
  without them and says nothing. A model compiled before the block is refused here: no feature.

A module's own forward hooks run after the tap, which does not see what they return instead.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from tlresearch.errors import UserError
from tlresearch.functional.dry_run import dry_run


class Features(Mapping[str, Tensor]):
    """What the tapped modules returned in one pass: tensors by path."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._calls: dict[str, list[Tensor]] = {path: [] for path in paths}

    def keeping(self, path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A module's `forward` that keeps a copy of what it returns."""

        def forward_and_keep(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            self._keep(path, output)
            return output

        return forward_and_keep

    def _keep(self, path: str, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise UserError(
                f"The tapped module {path!r} returns a {type(output).__name__}, and a feature is "
                "one tensor; tap a module that returns a tensor."
            )
        self._calls[path].append(output.clone())

    def __getitem__(self, path: str) -> Tensor:
        """The feature of a path.

        Raises:
            KeyError: the path is not tapped.
            UserError: its module was not called, or more than once.
        """
        calls = self._calls[path]
        if len(calls) == 1:
            return calls[0]
        if not calls:
            raise UserError(
                f"The tapped module {path!r} was not called between the beginning of the block and "
                "now; tap a module that the pass uses, and compile a model only with its taps."
            )
        raise UserError(
            f"The tapped module {path!r} was called {len(calls)} times, so that its feature is "
            "ambiguous; make one pass per block, and tap a module that a pass calls once."
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)


def check_path(model: nn.Module, path: str) -> nn.Module:
    """The module of that path.

    Args:
        model: whose modules are looked through.
        path: a name of `model.named_modules()` but "", which is the model itself.

    Raises:
        UserError: no module has that name; the nearest names are in its text.
    """
    if path:
        try:
            return model.get_submodule(path)
        except AttributeError:
            pass
    known = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    near = difflib.get_close_matches(path, known, cutoff=0.5) or [n for n in known if "." not in n]
    names = ", ".join(repr(name) for name in near[:8])
    raise UserError(
        f"{type(model).__name__} has no module {path!r}; "
        + (f"the nearest names are {names}." if near else "it has no modules at all.")
    )


@contextmanager
def tapped(model: nn.Module, paths: Sequence[str]) -> Iterator[Features]:
    """Within: `features[path]` is what the module of that path returned in the block's one pass.

    The features stay readable after the block.

    Args:
        model: left as it was found.
        paths: names of modules, each once; none is allowed.

    Raises:
        UserError: a path names no module, or, in the pass, a module that returns no tensor.
    """
    modules = {path: check_path(model, path) for path in paths}
    features = Features(paths)
    before = [(module, module.__dict__.get("forward")) for module in modules.values()]
    try:
        for path, module in modules.items():
            module.forward = features.keeping(path, module.forward)
        yield features
    finally:
        # Backwards, as two paths may name one module.
        for module, found in reversed(before):
            if found is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = found


def call_with_taps(
    module: nn.Module,
    parameters_and_buffers: Mapping[str, Tensor],
    inputs: Any,
    paths: Sequence[str],
) -> tuple[Any, dict[str, Tensor]]:
    """(f(x; θ), features): `torch.func.functional_call` with taps, for `vmap` and `grad`.

    Args:
        module: gives the structure.
        parameters_and_buffers: θ by name; names that it lacks keep the module's own tensors.
        inputs: x, or a tuple of the arguments.
        paths: of the modules whose outputs are returned.

    Returns:
        The output and a plain dictionary of the features by path, a tree that `vmap` can return.

    Raises:
        UserError: a path names no module, one that returns no tensor, or that the pass does not
            call exactly once.
    """
    with tapped(module, paths) as features:
        output = functional_call(module, dict(parameters_and_buffers), inputs)
    return output, dict(features.items())


def shapes(
    model: nn.Module, paths: Sequence[str], input_shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """The shape of each feature of one sample, found by a pass of two samples of zeros.

    The pass is in evaluation mode and changes nothing: weights, buffers, modes, random state.

    Args:
        model: on any device.
        paths: of modules whose outputs have the batch first.
        input_shape: of one sample, without the batch.

    Raises:
        UserError: as `tapped`, or a feature whose first dimension is not the batch.
    """
    batch = 2
    with tapped(model, paths) as features:
        dry_run(model, (batch, *input_shape))
    found = {path: tuple(feature.shape) for path, feature in features.items()}
    for path, shape in found.items():
        if shape[:1] != (batch,):
            raise UserError(
                f"The tapped module {path!r} returns shape {shape} for a batch of {batch}; a "
                "feature has the batch first, so tap another module."
            )
    return {path: shape[1:] for path, shape in found.items()}
