"""Photographs that are no files of a folder: behind URLs, in tar shards, in parquet. Their bytes only; `aas.images`
makes pixels of them.

A place that bytes come from is a class of `registry.PHOTOGRAPH_STORES` (by the scheme of a URL), a file that holds many
photographs one of `registry.PHOTOGRAPH_SHARDS` (by its suffix).
"""

from aas.photographs.address import Address, is_url, is_web, located
from aas.photographs.limits import ImageError
from aas.photographs.member import File, Member, file_of, member_of
from aas.photographs.shards import Photographs, is_elsewhere, is_shard

__all__ = [
           "Address",
           "File",
           "ImageError",
           "Member",
           "Photographs",
           "file_of",
           "is_elsewhere",
           "is_shard",
           "is_url",
           "is_web",
           "located",
           "member_of",
]  # fmt: skip
