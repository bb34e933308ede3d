"""Models of random weights, each a few thousand numbers: what they answer means nothing, and only its shape,
its parts and that it equals the library's own answer can be tested.

`unlearned(folder, name)` writes one of them into the folder, as the library writes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

LABELS = {0: "goat", 1: "kid", 2: "hill"}
_TO_ID = {label: number for number, label in LABELS.items()}


def unlearned(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    place = folder / name
    place.mkdir()
    _WRITE[name](place)
    return place


def _yolos(place: Path) -> None:
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

    YolosForObjectDetection(
        YolosConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=37,
            image_size=[32, 32],
            patch_size=8,
            num_detection_tokens=6,
            use_mid_position_embeddings=False,
            id2label=LABELS,
            label2id=_TO_ID,
        )
    ).save_pretrained(place)
    YolosImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(place)


def _segformer(place: Path) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessorPil

    SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[2, 1],
            hidden_sizes=[8, 16],
            patch_sizes=[7, 3],
            strides=[4, 2],
            num_attention_heads=[1, 2],
            mlp_ratios=[2, 2],
            decoder_hidden_size=16,
            id2label=LABELS,
            label2id=_TO_ID,
        )
    ).save_pretrained(place)
    SegformerImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(place)


def _maskformer(place: Path) -> None:
    from transformers import (
        DetrConfig,
        MaskFormerConfig,
        MaskFormerForInstanceSegmentation,
        MaskFormerImageProcessorPil,
        SwinConfig,
    )

    config = MaskFormerConfig(
        backbone_config=SwinConfig(
            image_size=64,
            patch_size=4,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        decoder_config=DetrConfig(
            d_model=32,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=16,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=16,
            num_queries=8,
        ),
        mask_feature_size=32,
        fpn_feature_size=32,
        id2label=LABELS,
        label2id=_TO_ID,
    )
    MaskFormerForInstanceSegmentation(config).save_pretrained(place)
    MaskFormerImageProcessorPil(size={"height": 64, "width": 64}, do_reduce_labels=False).save_pretrained(
        place
    )


def _wav2vec2(place: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    config = Wav2Vec2Config(id2label=LABELS, label2id=_TO_ID, classifier_proj_size=8, **_WAV2VEC2)
    Wav2Vec2ForSequenceClassification(config).save_pretrained(place)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(place)


def _ctc(place: Path) -> None:
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
    )

    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = place / "vocab.json"
    vocabulary.write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(letters), pad_token_id=0, **_WAV2VEC2)).save_pretrained(
        place
    )
    Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(place)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(place)


_WAV2VEC2 = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def _vits(place: Path, speakers: int = 1) -> None:
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    letters = "_ abcdefghijklmnopqrstuvwxyz'"
    vocabulary = place / "vocab.json"
    vocabulary.write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    VitsTokenizer(
        str(vocabulary), pad_token="_", unk_token="_", phonemize=False, is_uroman=False, normalize=True
    ).save_pretrained(place)
    VitsModel(
        VitsConfig(
            vocab_size=len(letters),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            ffn_dim=16,
            flow_size=16,
            spectrogram_bins=16,
            upsample_initial_channel=16,
            upsample_rates=[8, 8],
            upsample_kernel_sizes=[16, 16],
            resblock_kernel_sizes=[3],
            resblock_dilation_sizes=[[1, 3, 5]],
            posterior_encoder_num_wavenet_layers=1,
            prior_encoder_num_flows=1,
            prior_encoder_num_wavenet_layers=1,
            depth_separable_channels=2,
            depth_separable_num_layers=1,
            duration_predictor_filter_channels=16,
            duration_predictor_num_flows=2,
            num_speakers=speakers,
            speaker_embedding_size=8 if speakers > 1 else 0,
        )
    ).save_pretrained(place)


def _speecht5(place: Path) -> None:
    import sentencepiece
    from safetensors.torch import save_file
    from transformers import (
        SpeechT5Config,
        SpeechT5ForTextToSpeech,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
        SpeechT5Tokenizer,
    )

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog", "hello goat"]),
        model_prefix=str(place / "spm_char"),
        vocab_size=31,
        model_type="char",
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=3,
    )
    SpeechT5Tokenizer(str(place / "spm_char.model")).save_pretrained(place)
    SpeechT5ForTextToSpeech(
        SpeechT5Config(
            vocab_size=40,
            hidden_size=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            speech_decoder_prenet_units=16,
            speech_decoder_postnet_units=16,
            speech_decoder_postnet_layers=2,
            speaker_embedding_dim=8,
            num_mel_bins=20,
        )
    ).save_pretrained(place)
    SpeechT5HifiGan(SpeechT5HifiGanConfig(model_in_dim=20, upsample_initial_channel=16)).save_pretrained(
        place / "vocoder"
    )
    save_file({"anna": torch.randn(8), "boris": torch.randn(8)}, str(place / "voices.safetensors"))


def _diffusion(place: Path) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    alphabet = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *alphabet, *(f"{letter}</w>" for letter in alphabet)]
    (place / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            norm_num_groups=4,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=32,
                intermediate_size=37,
                num_attention_heads=4,
                num_hidden_layers=2,
                max_position_embeddings=16,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        tokenizer=CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=16),
        unet=UNet2DConditionModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            sample_size=16,
            norm_num_groups=4,
            cross_attention_dim=32,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(place)


def _tapas(place: Path) -> None:
    from transformers import TapasConfig, TapasForQuestionAnswering, TapasTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789?.,-"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]"]
    words = [*special, *letters, *("##" + letter for letter in letters)]
    vocabulary = place / "vocab.txt"
    vocabulary.write_text("\n".join(words))
    TapasTokenizer(str(vocabulary), model_max_length=128).save_pretrained(place)
    TapasForQuestionAnswering(
        TapasConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
            initializer_range=0.4,
            num_aggregation_labels=4,
            aggregation_labels={0: "NONE", 1: "SUM", 2: "AVERAGE", 3: "COUNT"},
            no_aggregation_label_index=0,
        )
    ).save_pretrained(place)


_WRITE: dict[str, Callable[[Path], None]] = {
    "tapas": _tapas,
    "yolos": _yolos,
    "segformer": _segformer,
    "maskformer": _maskformer,
    "wav2vec2": _wav2vec2,
    "ctc": _ctc,
    "vits": _vits,
    "vits-of-three": lambda place: _vits(place, speakers=3),
    "speecht5": _speecht5,
    "diffusion": _diffusion,
}
