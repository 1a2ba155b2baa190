"""Which fields are stored as bfloat16, where a run asks for that: half the bytes to keep, to move and to pull.

A field has its type wherever it lives, in the compute tier as well as on storage, so that no number depends on where
it is. The step that makes it rounds it once; every step that reads it computes with float32 again.
"""

from __future__ import annotations

from collections import Counter

from flexgnn.core.errors import ConfigError
from flexgnn.core.plan.names import EVALUATION, gradient_name, partial_gradient_name, published_name
from flexgnn.core.program.program import Program, is_stored

STORAGE_DTYPES = ("float32", "bfloat16")


def check_storage_dtype(name: str) -> str:
    """``name``, if it is one of :data:`STORAGE_DTYPES`.

    Raises:
        ConfigError: otherwise.
    """
    if name not in STORAGE_DTYPES:
        raise ConfigError(f"The storage dtype {name!r} is unknown; {' and '.join(STORAGE_DTYPES)} are accepted.")
    return name


def rounded_names(program: Program, storage_dtype: str) -> frozenset[str]:
    """The fields that are stored as bfloat16: values that segments leave for other steps, sums, and gradients.

    What a maximum is of stays float32, as do its gradients: they are found by comparing rows. So does all of attention,
    whose scores stand in exponents, and of convolutions that are run as they are. So do features, labels
    and folded aggregations (which are inputs), and the vectors of nodes; sums that several aggregations make of one
    field, since they share one place to be added up in; and gradients and hidden values that only some plans write.
    """
    if storage_dtype == "float32":
        return frozenset()
    made = {value for segment in program.segments for value in segment.outputs}
    exact = [a for a in program.aggregations if a.reduce != "sum"]
    compared = {name for a in exact for name in (published_name(a.input, a), a.output, a.query)}
    sums = [a for a in program.aggregations if a.reduce == "sum"]
    published = {published_name(a.input, a) for a in sums}
    pulled = Counter((a.stage, published_name(a.input, a)) for a in program.aggregations)
    summed = {a.output for a in sums if pulled[a.stage, published_name(a.input, a)] == 1}
    values = {value for value in made | published | summed if not is_stored(value)} - compared
    gradients = {gradient_name(a) for a in sums}
    partial = {partial_gradient_name(value, segment.stage) for segment in program.segments for value in segment.inputs}
    return frozenset(values | {EVALUATION + value for value in values} | gradients | partial)
