"""Image encoders: what turns frames into the particles or latents that agents see.

`ENCODERS` are those that can be trained, by their name in `config.yaml`. To add one: its
`EncoderModel`, its section in `encoder`, and a line here. `FROZEN` are trained ones as agents use
them, by their name in `obs`: a class, and a kind of observation in `common.observations`.
"""

ENCODERS = {
    "dlp": "visual_encoders.dlp.training:DLPTraining",
    "vqvae": "visual_encoders.vqvae.training:VQVAETraining",
}

FROZEN = {
    "dlp": "visual_encoders.dlp.frozen:FrozenDLP",
    "vqvae": "visual_encoders.vqvae.frozen:FrozenVQVAE",
}
