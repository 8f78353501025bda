"""`aas compare …`: what can be chosen, side by side on the user's own photographs."""

from aas.cli.look import Command, group
from aas.cli.options import command_of, examples
from aas.stages.compare_maps_options import CompareMaps

compare = group("Compare what can be chosen, on photographs whose things are known.")


def _compare_maps(options: CompareMaps) -> int:
    from aas.stages.compare_maps import compare_maps

    return compare_maps(options)


compare.command(
    "maps",
    cls=Command,
    epilog=examples(
        "aas compare maps --images val2017/ --gt instances_val2017.json --maps mean,tam,fused",
        "aas compare maps --images val2017/ --gt instances_val2017.json --answers captions.jsonl --json maps.json",
        "aas compare maps --images photos/ --gt boxes.json --maps mean,tam --page map-report.html",
    ),
)(command_of(CompareMaps, _compare_maps))
