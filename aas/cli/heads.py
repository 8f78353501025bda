"""`aas head …`: mask heads that are trained on a frozen LMM."""

from aas.cli.look import Command, group
from aas.cli.options import command_of, examples
from aas.stages.head_import import HeadImport
from aas.stages.head_train import HeadTrain

head = group("Mask heads that are trained on a frozen LMM.")


def _import(options: HeadImport) -> int:
    from aas.stages.head_import import import_head

    return import_head(options)


def _train(options: HeadTrain) -> int:
    from aas.stages.head_train import train_head

    return train_head(options)


head.command(
    "train",
    cls=Command,
    epilog=examples(
        "aas head train --config recipes/heads/unet-corrected.yaml",
        "aas head train --config recipes/heads/unet-refcoco-png.yaml",
    ),
)(command_of(HeadTrain, _train))
head.command(
    "import",
    cls=Command,
    epilog=examples(
        "aas head import frozen_deepseek_vl_1_3b_unet_sam_l.pth --model deepseek-community/deepseek-vl-1.3b-chat "
        "--out deepseek-head.safetensors",
        "aas head import frozen_llava_1_5_7b.pth --model llava-hf/llava-1.5-7b-hf --segmenter sam_vit_l_0b3195.pth "
        "--out llava-head.safetensors",
        "aas head import hg_frozen_llava.pth --model llava-hf/llava-1.5-7b-hf --out llava-highres.safetensors",
    ),
)(command_of(HeadImport, _import))
