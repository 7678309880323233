"""The distortion models of camera_info: their names, their synonyms and their numbers of coefficients."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DISTORTION_MODELS", "conventional_distortion"]

# Coefficient counts by model. plumb_bob with none at all is how ROS drivers say that there is no distortion.
DISTORTION_MODELS = {"plumb_bob": (0, 4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
# Other names of the models, without case and without spaces, hyphens and underscores.
_SYNONYMS = {
    **dict.fromkeys(("plumbbob", "radtan", "radialtangential", "brownconrady"), "plumb_bob"),
    **dict.fromkeys(("rationalpolynomial", "rational"), "rational_polynomial"),
    **dict.fromkeys(("equidistant", "equidist", "fisheye", "opencvfisheye"), "equidistant"),
    **dict.fromkeys(("kannalabrandt", "kannalabrandt4", "kb", "kb4"), "equidistant"),
}
# Parts of the names of models that are no pinhole even where all coefficients are zero.
_NO_PINHOLE = (
    "fisheye",
    "equi",
    "omni",
    "mei",
    "unified",
    "sphere",
    "spheric",
    "eucm",
    "fov",
    "theta",
    "scaramuzza",
    "ocam",
    "cylind",
    "panoram",
    "stereographic",
    "kb",
    "kannala",
)


def conventional_distortion(name: str, coefficients: Sequence[float]) -> tuple[str, tuple[float, ...]]:
    """A distortion model and its coefficients as a camera_info has them, in the names and counts of `make_lens`.

    A name may be a usual synonym; case, spaces, hyphens and underscores do not matter. Zeros after a model's last
    coefficient are left out. An unknown or empty name without coefficients, or with zeros alone, means no distortion,
    unless it is the name of a lens that is no pinhole.

        >>> conventional_distortion("Kannala-Brandt", (0.1, 0.0, 0.0, 0.0, 0.0))
        ('equidistant', (0.1, 0.0, 0.0, 0.0))
        >>> conventional_distortion("none", ())
        ('plumb_bob', ())

    Args:
        name: distortion_model of the camera_info.
        coefficients: its D.
    Raises:
        ValueError: the model is not known, or has another number of coefficients; names the model that has as many.
    """
    values = tuple(float(value) for value in coefficients)
    plain = "".join(character for character in name.lower() if character not in " -_")
    model = _SYNONYMS.get(plain)
    if model is None:
        if any(values) or any(part in plain for part in _NO_PINHOLE):
            remedy = "correct it in the camera_info, or leave D empty if the pictures have no distortion"
            raise ValueError(
                f"distortion_model is {name!r}; expected one of {', '.join(DISTORTION_MODELS)}; {remedy}"
                if values or plain
                else f"distortion_model is empty, but D is {values}; {remedy}"
            )
        return "plumb_bob", ()
    counts = DISTORTION_MODELS[model]
    if len(values) in counts:
        return model, values
    if model != "equidistant" and not any(values):
        return "plumb_bob", ()
    fitting = [count for count in counts if 0 < count < len(values) and not any(values[count:])]
    if fitting:
        return model, values[: max(fitting)]
    others = [other for other, numbers in DISTORTION_MODELS.items() if other != model and len(values) in numbers]
    wanted = " or ".join(str(count) for count in counts if count)
    hint = f"; {len(values)} are those of {others[0]}: correct the name" if others and model != "equidistant" else ""
    raise ValueError(f"{model} has {len(values)} coefficients; expected {wanted}, zeros for no distortion{hint}")
