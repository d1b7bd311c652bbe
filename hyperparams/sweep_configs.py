"""What `python run_sweep.py` tries: edit it, and the next sweep tries that.

It is read, never executed. Written by: foresweep spaces copy all --python
PRIORITY and QUICK are configs, each with its source; what stands under scratch or pretrained
is laid over config for that start. FULL is the grid of --mode full, WHEN says under which
values of others a hyperparameter is in it. Ranges, for --mode smart, random and focused, are
in what `foresweep spaces copy MODEL` prints.
"""

TOTO_PRIORITY = [
    {
        "name": "quantile loss, context 512",
        "source": "the first recommended config: context 512, lr 3e-4, batch 8 x 8, 100 epochs, quantile loss, clip 1, patch 32; from scratch lr about 10 times larger",
        "config": {"context_length": 512, "batch_size": 64, "max_epochs": 100, "loss_type": "quantile", "gradient_clip": 1.0},
        "scratch": {"lr": 0.002, "patch_size": 32},
        "pretrained": {"lr": 0.0003},
    },
    {
        "name": "quantile loss, context 1024",
        "source": "the second recommended config: context 1024 at the same lr, loss and batch (4 x 16)",
        "config": {"context_length": 1024, "batch_size": 64, "max_epochs": 100, "loss_type": "quantile", "gradient_clip": 1.0},
        "scratch": {"lr": 0.002, "patch_size": 32},
        "pretrained": {"lr": 0.0003},
    },
    {
        "name": "Huber loss, small lr",
        "source": "the third recommended config: Huber with delta 0.01, lr 1e-4, otherwise as the first",
        "config": {"context_length": 512, "batch_size": 64, "max_epochs": 100, "loss_type": "huber", "huber_delta": 0.01, "gradient_clip": 1.0},
        "scratch": {"lr": 0.001, "patch_size": 32},
        "pretrained": {"lr": 0.0001},
    },
    {
        "name": "authors' recipe",
        "source": "finetune_config of the toto repository: lr 4e-5, 1400 steps of which 1000 warm up, warm-up stable decay, batch 16, 8 patches of 64 bars, combined loss, weight decay 0.01; from scratch patches of 8, 300 steps and a tenth of them warm-up",
        "config": {"batch_size": 16, "schedule": "wsd", "loss_type": "combined", "weight_decay": 0.01},
        "scratch": {"lr": 0.002, "context_length": 256, "max_steps": 300, "warmup_fraction": 0.1},
        "pretrained": {"lr": 4e-05, "context_length": 512, "max_steps": 1400, "warmup_fraction": 0.71, "dropout": 0.1},
    },
    {
        "name": "closes alone",
        "source": "without range, gap and volume, which the other configs see as further channels (Toto's space-wise attention was made for them, arXiv 2505.14766): the difference is what the bars add",
        "config": {"batch_size": 16, "covariates": "none"},
        "scratch": {"lr": 0.002, "context_length": 128, "max_steps": 300},
        "pretrained": {"lr": 4e-05, "context_length": 512, "max_steps": 1000, "dropout": 0.1},
    },
]

TOTO_QUICK = [
    {
        "name": "Huber loss, 30 epochs",
        "source": "the quick config first recommended (lr 3e-4, 30 epochs, Huber) at a context that short panels have",
        "config": {"context_length": 128, "batch_size": 16, "max_epochs": 30, "loss_type": "huber", "huber_delta": 0.1},
        "scratch": {"lr": 0.002},
        "pretrained": {"lr": 0.0003},
    },
    {
        "name": "combined loss",
        "source": "the authors' loss on overlapping returns, small batches: a few seconds at size tiny",
        "config": {"context_length": 128, "batch_size": 8, "loss_type": "combined"},
        "scratch": {"lr": 0.002, "max_steps": 600},
        "pretrained": {"lr": 4e-05, "max_steps": 100},
    },
    {
        "name": "one-bar returns",
        "source": "one channel and sampled paths, a fifth of the work; on daily prices an untrained Toto is already near its best loss here",
        "config": {"context_length": 128, "batch_size": 16, "target": "return", "covariates": "none"},
        "scratch": {"lr": 0.002, "max_steps": 600},
        "pretrained": {"lr": 4e-05, "max_steps": 100},
    },
]

TOTO_FULL = {
    "context_length": [512, 1024],
    "warmup_fraction": [0.05, 0.2],
    "batch_size": [32, 64, 128],
    "max_epochs": [50, 100],
    "loss_type": ["huber", "quantile"],
    "huber_delta": [0.01, 0.05],
}

TOTO_FULL_SCRATCH = {
    "patch_size": [32, 64],
    "lr": [0.001, 0.002, 0.004],
}

TOTO_FULL_PRETRAINED = {
    "lr": [0.0001, 0.0003, 0.0005],
}

TOTO_FULL_WHEN = {
    "huber_delta": {"loss_type": "huber"},
}

KRONOS_PRIORITY = [
    {
        "name": "long context, 64 ahead",
        "source": "lr, epochs and batch as first recommended; context 512 became 448 so that 64 bars ahead fit into 512 positions; huber loss dropped (token cross-entropy, arXiv 2508.02739)",
        "config": {"context_length": 448, "prediction_length": 64, "batch_size": 32, "max_epochs": 100, "warmup_fraction": 0.1},
        "scratch": {"lr": 0.003},
        "pretrained": {"lr": 0.0003},
    },
    {
        "name": "128 ahead",
        "source": "lr, epochs and batch as first recommended; context 1024 became 384 so that 128 bars ahead fit into 512 positions; huber loss dropped (token cross-entropy, arXiv 2508.02739)",
        "config": {"context_length": 384, "prediction_length": 128, "batch_size": 16, "max_epochs": 100, "warmup_fraction": 0.1},
        "scratch": {"lr": 0.001},
        "pretrained": {"lr": 0.0001},
    },
    {
        "name": "authors' recipe",
        "source": "finetune/config.py: 90 bars and 10 ahead, batch 50, 30 epochs, predictor 4e-5, weight decay 0.1, beta2 0.95, clip 3, warm-up 3 %; a frozen tokenizer, since its fine-tuning did not help users (issues 104 and 200 there)",
        "config": {"context_length": 90, "prediction_length": 10, "batch_size": 50, "warmup_fraction": 0.03, "weight_decay": 0.1, "beta2": 0.95, "gradient_clip": 3.0},
        "scratch": {"lr": 0.002, "max_steps": 1000},
        "pretrained": {"lr": 4e-05, "max_epochs": 30},
    },
    {
        "name": "authors' recipe, tokenizer too",
        "source": "finetune/train_tokenizer.py and train_predictor.py: both stages, tokenizer 2e-4; sampling as in finetune/qlib_test.py (temperature 0.6, top_p 0.9)",
        "config": {"context_length": 90, "prediction_length": 10, "batch_size": 50, "warmup_fraction": 0.03, "weight_decay": 0.1, "beta2": 0.95, "gradient_clip": 3.0, "temperature": 0.6, "top_p": 0.9},
        "scratch": {"lr": 0.002, "max_steps": 1000, "tokenizer_fraction": 0.4},
        "pretrained": {"lr": 4e-05, "max_epochs": 30, "freeze_tokenizer": False, "tokenizer_lr": 0.0002},
    },
]

KRONOS_QUICK = [
    {
        "name": "long context, few epochs",
        "source": "the quick config first recommended, 30 epochs; context 512 became 448 so that 64 bars ahead fit into 512 positions; huber loss dropped",
        "config": {"context_length": 448, "prediction_length": 64, "batch_size": 16, "max_epochs": 30},
        "scratch": {"lr": 0.003},
        "pretrained": {"lr": 0.0003},
    },
    {
        "name": "short windows",
        "source": "finetune/config.py: 90 bars are enough downstream (issues 120 and 177 there)",
        "config": {"context_length": 90},
        "scratch": {"lr": 0.002, "max_steps": 800},
        "pretrained": {"lr": 4e-05, "max_epochs": 10},
    },
    {
        "name": "short windows, the other target",
        "source": "price levels from scratch as the paper has them, against returns; with weights, returns against the levels that they know",
        "config": {"context_length": 90},
        "scratch": {"lr": 0.002, "max_steps": 800, "target": "price"},
        "pretrained": {"lr": 4e-05, "max_epochs": 10, "target": "return"},
    },
]

KRONOS_FULL = {
    "context_length": [128, 256, 384],
    "prediction_length": [64, 128],
    "warmup_fraction": [0.05, 0.1],
    "weight_decay": [0.01, 0.05],
    "gradient_clip": [1.0, 5.0],
    "batch_size": [16, 32],
    "max_epochs": [50, 100],
}

KRONOS_FULL_SCRATCH = {
    "num_heads": [8, 16],
    "num_layers": [12, 16],
    "d_model": [512, 768],
    "lr": [0.001, 0.003, 0.005],
}

KRONOS_FULL_PRETRAINED = {
    "lr": [1e-05, 4e-05, 0.0001, 0.0003],
}

CHRONOS2_PRIORITY = [
    {
        "name": "first recommended (LoRA 16 over weights)",
        "source": "lr, epochs, batch, context and rank as first recommended, which also froze the backbone: LoRA does so by itself; from scratch the same windows in full, lr 20 times larger",
        "config": {"context_length": 512, "prediction_length": 64, "batch_size": 16, "max_epochs": 50, "warmup_fraction": 0.1},
        "scratch": {"lr": 0.001},
        "pretrained": {"lr": 5e-05, "finetune": "lora", "lora_r": 16},
    },
    {
        "name": "second recommended (all weights)",
        "source": "lr, epochs, batch and context as first recommended; from scratch lr 20 times larger",
        "config": {"context_length": 512, "prediction_length": 64, "batch_size": 8, "max_epochs": 50, "warmup_fraction": 0.1},
        "scratch": {"lr": 0.002},
        "pretrained": {"lr": 0.0001},
    },
    {
        "name": "authors' recipe",
        "source": "Chronos2Pipeline.fit: 1000 steps, linear, no warm-up, no weight decay, clip 1, LoRA r 8 and alpha 16 on attention and output layer at the 1e-5 its docstring advises; from scratch 300 steps, where tiny networks on daily returns were best",
        "config": {"schedule": "linear", "warmup_fraction": 0.0, "weight_decay": 0.0, "batch_size": 32},
        "scratch": {"lr": 0.001, "max_steps": 300, "context_length": 256},
        "pretrained": {"lr": 1e-05, "max_steps": 1000, "context_length": 1024, "finetune": "lora"},
    },
    {
        "name": "closes alone",
        "source": "without range, gap and volume, which the other configs see as past-only covariates (group attention was made for them, arXiv 2510.15821): the difference is what the bars add",
        "config": {"context_length": 256, "batch_size": 16, "covariates": "none"},
        "scratch": {"lr": 0.001, "max_steps": 300},
        "pretrained": {"lr": 1e-05, "max_steps": 1000},
    },
]

CHRONOS2_QUICK = [
    {
        "name": "20 epochs (embeddings only over weights)",
        "source": "the quick config first recommended: context 512, lr 5e-5, 20 epochs, frozen backbone; from scratch all weights, lr 20 times larger",
        "config": {"context_length": 512, "batch_size": 16, "max_epochs": 20},
        "scratch": {"lr": 0.001},
        "pretrained": {"lr": 5e-05, "freeze": "backbone"},
    },
    {
        "name": "returns of every lead",
        "source": "overlapping returns give lead h directly; contexts beyond 128 gained little on daily returns from scratch, 1e-5 is the authors' advice for weights",
        "config": {"context_length": 128, "batch_size": 8, "target": "overlapping"},
        "scratch": {"lr": 0.001, "max_steps": 600},
        "pretrained": {"lr": 1e-05, "max_steps": 100},
    },
    {
        "name": "one-bar returns",
        "source": "the same network on one channel: a third of the time",
        "config": {"context_length": 128, "batch_size": 32, "target": "return", "covariates": "none"},
        "scratch": {"lr": 0.001, "max_steps": 600},
        "pretrained": {"lr": 1e-05, "max_steps": 100},
    },
]

CHRONOS2_FULL = {
    "context_length": [512, 1024],
    "prediction_length": [64, 128],
    "warmup_fraction": [0.05, 0.1],
    "batch_size": [8, 16],
    "max_epochs": [20, 50],
}

CHRONOS2_FULL_SCRATCH = {
    "lr": [0.0003, 0.001, 0.002],
}

CHRONOS2_FULL_PRETRAINED = {
    "lr": [1e-05, 5e-05, 0.0001],
    "finetune": ["full", "lora"],
    "freeze": ["none", "backbone"],
    "lora_r": [8, 16, 32],
}

CHRONOS2_FULL_WHEN = {
    "freeze": {"finetune": "full"},
    "lora_r": {"finetune": "lora"},
}
