"""Builds the C++ library of LMI-Dist with the package; everything else is in pyproject.toml.

One shared library per instruction set, without Python's headers: it is loaded with ctypes. Without
a compiler the package installs all the same, and LMI-Dist computes with torch. With
LMI_NATIVE_TARGETS=host only the one that this machine would load is built, in a third of the time.
"""

import os
import platform
import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = Path("lmi/dist/native")
# What loads the libraries knows the instruction sets, the most capable first.
LIBRARY = runpy.run_path(str(FOLDER / "library.py"))
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


def targets():
    """The names of the instruction sets to build for."""
    known = LIBRARY["TARGETS"].get(platform.machine(), ())
    if os.environ.get("LMI_NATIVE_TARGETS") == "host":
        flags = LIBRARY["processor_flags"]()
        known = [target for target in known if target.flags <= flags][:1]
    return [target.name for target in known]


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
    ext_modules=[extension(target) for target in targets()],
    cmdclass={"build_ext": BuildLibraries},
)
