"""Templates become markup, with every value escaped, and none that is missing passed over."""

from __future__ import annotations

import jinja2


def make_environment(package: str) -> jinja2.Environment:
    """For the templates in a package's folder `templates`.

    Args:
        package: Its full name.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
