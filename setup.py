"""Which files the package holds; everything else about it is in pyproject.toml.

conf/ and experiments/ lie at the top of the repository, where their users look for them, and inside the installed
package.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["spleen*", "hydra_plugins*"]),
        "spleen.conf",
        "spleen.experiments",
    ],
    package_dir={"spleen.conf": "conf", "spleen.experiments": "experiments"},
    package_data={
        "spleen": ["py.typed"],
        "spleen.reporting": ["pages/*"],
        "spleen.conf": ["**/*.yaml"],
        "spleen.experiments": ["**/*.yaml", "**/*.md"],
    },
    include_package_data=False,
)
