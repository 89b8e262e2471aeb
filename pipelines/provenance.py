"""What determined a result: code, parameters, data, versions, CPU."""

import importlib.metadata
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from ruamel.yaml import YAML

from pipelines.layout import ROOT
from pipelines.running.commands import git
from tcformer.errors import UserError
from tcformer.files import sha256_of_file, sha256_of_json
from tcformer.tasks import OWN_TASKS

PACKAGES = ("torch", "numpy", "ray", "deepspeed", "mlflow", "dvc", "pycocotools", "triton", "timm", "safetensors")
NOT_INSTALLED = "not installed"  # instead of a package's version
DISTRIBUTION = "tcformer"  # the name in pyproject.toml
#: Packages whose files a stage of dvc.yaml may depend on.
CODE = ("kernels", "tcformer", "pipelines", "stages")
#: Instruction sets by which libraries choose among code that rounds differently, as Linux names them; then ARM's.
INSTRUCTION_SETS = (
    *("sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "bf16", "sve", "sve2"),
)


def sha256_of_files(folder: Path, names: Iterable[str]) -> str:
    """One SHA-256 for the named files below `folder`: their names and their bytes, in sorted order."""
    return sha256_of_json({name: sha256_of_file(folder / name) for name in sorted(names)})


def stage_code(stage: str, root: Path = ROOT) -> list[str]:
    """Files and folders of code that a stage of dvc.yaml depends on: what can change its result.

    dvc.yaml is the one list of them: DVC reruns the stage by it, and a training's identity contains their bytes.

    Args:
        stage: as DVC names it, "finetune@face".
        root: folder of dvc.yaml.
    """
    name, _, item = stage.partition("@")
    entry = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
    deps = entry.get("do", entry)["deps"]
    # A task that dvc.yaml does not run depends on the same places, and on those of tasks with which it shares code.
    tasks = [item, *(OWN_TASKS[item].shares if item in OWN_TASKS else ())]
    places = [re.sub(r"\$\{(key|item\.task)\}", task, dep) for task in tasks for dep in deps]
    named = list(dict.fromkeys(places))
    return [dep for dep in named if dep.split("/")[0] in CODE]


def code_version(stage: str) -> str:
    """SHA-256 of the sources that can change a stage's result: not of those that launch or record it."""
    return sha256_of_sources(stage_code(stage))


def sha256_of_sources(places: Iterable[str]) -> str:
    """One SHA-256 for the sources in this copy of the project that are the named places or below them."""
    names = [
        str(path.relative_to(ROOT))
        for place in places
        for path in ((ROOT / place).rglob("*") if (ROOT / place).is_dir() else [ROOT / place])
        if path.suffix in (".py", ".cpp", ".h")
    ]
    return sha256_of_files(ROOT, names)


def git_revision(root: Path = ROOT) -> str:
    """Commit of this code, with `-dirty` where tracked files differ from it.

    Outside of a git repository that tracks the code, as in an installed wheel, it is the installed version: the
    repository of a folder above is that of something else.

    Args:
        root: folder of the packages.
    """
    try:
        git(root, "ls-files", "--error-unmatch", "--", Path(__file__).relative_to(ROOT).as_posix())
        changes = git(root, "status", "--porcelain", "--untracked-files=no", "--", ".").strip()
        return git(root, "rev-parse", "HEAD").strip() + ("-dirty" if changes else "")
    except UserError:  # an installed package, or no git
        pass
    try:
        return f"{DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)}"
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that take part in a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = NOT_INSTALLED
    return found


def cpu(description: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Model and instruction sets of this machine's CPU, by which the last bits of a training's numbers may differ.

    Args:
        description: Linux's description of the CPU; without it, only the platform's name of the CPU is known.
    """
    fields: dict[str, str] = {}
    if description.is_file():
        for line in description.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features", "")).split())
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "instruction_sets": " ".join(name for name in INSTRUCTION_SETS if name in flags),
    }
