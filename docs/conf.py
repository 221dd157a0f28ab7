"""Settings of sphinx-build."""

import re
from typing import Any

import modeling_msa

project = "modeling-msa"
author = "the authors of modeling-msa"
copyright = "the authors of modeling-msa; Apache-2.0"
version = release = modeling_msa.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "made/*/README.md"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types, with shapes
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
default_role = "py:obj"  # `name` in a docstring is a link if there is such an object on these pages
nitpick_ignore_regex = [("py:obj", ".*")]  # and if there is none, such as for a parameter, it is only a name

copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

smartquotes = False  # --option stays so

html_theme = "furo"
html_title = f"modeling-msa {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False


def find_exported(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Find what a docstring calls `X` or `modeling_msa.module.X` under the name that it has on these pages."""
    if node.get("refdomain") != "py":
        return None
    python = env.domains.python_domain
    words = node["reftarget"].split(".")
    while len(words) > 1 and words[0].islower():  # package and modules
        words = words[1:]
    tail = "." + ".".join(words)
    found = [name for name in python.objects if name.startswith("modeling_msa.") and name.endswith(tail)]
    if len(found) != 1:
        return None
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, shown)


def leave_out(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn adds to its estimators: methods that route metadata."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app: Any) -> None:
    """Connect what is above; Sphinx calls it."""
    app.connect("missing-reference", find_exported)
    app.connect("autodoc-skip-member", leave_out)
