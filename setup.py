"""Builds the C++ library of LMI-Dist with the package; everything else is in pyproject.toml.

One shared library per instruction set, without Python's headers: it is loaded with ctypes. Without
a compiler the package installs all the same, and LMI-Dist computes with torch.
"""

import os
import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = Path("lmi/dist/native")
# The same names as TARGETS in lmi/dist/native/library.py, which picks one when it loads.
TARGETS = {
    "x86_64": ("x86-64-v4", "x86-64-v3", "x86-64"),
    "aarch64": ("armv8-a",),
}
FLAGS = [
    *("-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-pthread"),
    # A fused multiply-add where the processor has one; NaN and infinity keep their meaning.
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    # GCC's own header of AVX-512 is what it warns of.
    "-Wno-maybe-uninitialized",
]


class BuildLibraries(build_ext):
    """Names the files after the instruction set only: no version of Python is in them."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split(".")[:-1], fullname.rpartition(".")[2] + ".so"))

    def build_extension(self, ext):
        # All have the same sources: each needs a folder of its own for the objects.
        objects = self.compiler.compile(
            ext.sources,
            output_dir=str(Path(self.build_temp, ext.name)),
            extra_postargs=ext.extra_compile_args,
        )
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            extra_postargs=ext.extra_link_args,
            target_lang=ext.language,
        )


def extension(target):
    return Extension(
        f"lmi.dist.native.lmi_{target}",
        sources=sorted(str(path) for path in FOLDER.glob("*.cpp")),
        depends=sorted(str(path) for path in FOLDER.glob("*.h")),
        extra_compile_args=[*FLAGS, f"-march={target}", f'-DLMI_TARGET="{target}"'],
        extra_link_args=["-pthread"],
        language="c++",
        optional=True,
    )


setup(
    ext_modules=[extension(target) for target in TARGETS.get(platform.machine(), ())],
    cmdclass={"build_ext": BuildLibraries},
)
