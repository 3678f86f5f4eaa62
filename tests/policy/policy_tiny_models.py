"""Real vision-language architectures at random, tiny size, saved to a folder as from the Hub."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = ["lift", "push", "the", "red", "blue", "cube"]


def tokenizer(special: list[str], **named: str) -> PreTrainedTokenizerFast:
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *special, *WORDS]
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, **marks, additional_special_tokens=special, extra_special_tokens=named
    )


def save_paligemma(folder: Path) -> Path:
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    words = tokenizer(["<image>"], image_token="<image>")
    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    torch.manual_seed(0)
    config = PaliGemmaConfig(
        text_config={
            "model_type": "gemma", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": len(words),
        },
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "projection_dim": 32,
        },
        image_token_index=words.convert_tokens_to_ids("<image>"), projection_dim=32, hidden_size=32,
    )  # fmt: skip
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    PaliGemmaProcessor(images, words).save_pretrained(folder)
    return folder


def save_idefics3(folder: Path) -> Path:
    """The architecture of SmolVLM."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    words = tokenizer(special)
    torch.manual_seed(0)
    images = Idefics3ImageProcessor(
        size={"longest_edge": 28}, max_image_size={"longest_edge": 28}, do_image_splitting=False
    )
    config = Idefics3Config(
        text_config={
            "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": len(words), "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 7,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"), scale_factor=2, pad_token_id=0,
    )  # fmt: skip
    Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for m in messages %}{{ m['role'] }} {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    Idefics3Processor(images, words, image_seq_len=4, chat_template=template).save_pretrained(folder)
    return folder


ARCHITECTURES = {"paligemma": save_paligemma, "idefics3": save_idefics3}


def smolvlm_words() -> PreTrainedTokenizerFast:
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    return tokenizer(
        special, image_token="<image>", fake_image_token="<fake_token_around_image>", global_image_token="<global-img>"
    )


def save_smolvlm(folder: Path) -> Path:
    """Config and processor of SmolVLM, which SmolVLA builds its network from."""
    from transformers import Idefics3ImageProcessor, Idefics3Processor, SmolVLMConfig

    words = smolvlm_words()
    SmolVLMConfig(
        text_config={
            "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": len(words),
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 7,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"), scale_factor=2, pad_token_id=0,
    ).save_pretrained(folder)  # fmt: skip
    images = Idefics3ImageProcessor(
        size={"longest_edge": 28}, max_image_size={"longest_edge": 28}, do_image_splitting=False
    )
    Idefics3Processor(images, words, image_seq_len=4).save_pretrained(folder)
    return folder
