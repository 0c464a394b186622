"""Videos from captions: the small and large models of VDM, and its cascade.

Paper:     Video Diffusion Models (Ho et al. 2022), Appendix A.4, Tables 4 - 6
Command:   python -m vdm_jax.main --mode=encode --config=... --workdir=runs/t2v
           python -m vdm_jax.main --config=configs/text_to_video.py:large \
             --config.data.path=DIR --config.text.encoder=BERT \
             --workdir=runs/t2v
Variants:  small                16x64x64, frameskip 1; Table 4 with
                                --config.train.num_images=0, 4 and 8
           large                16x64x64, frameskip 1
           large,frameskip4     16x64x64, frameskip 4
           upsampler            9x128x128, frameskip 1, of the cascade
           list, packed         other data, e.g. large,packed (see folder.py)
           smoke                any of them in two steps, for tests
Cascade:   python -m vdm_jax.main --mode=cascade --workdir=runs/t2v_cascade \
             --stages=runs/t2v_frameskip4,runs/t2v_upsampler --prompt='...'
           with --config.text.store=STORE in all three, captions are encoded
           once
Data:      DIR holds clips at any depth, each with its caption in a .txt file;
           the paper used 10 million captioned videos of its own
           BERT is a folder with bert-large-uncased
Hardware:  the paper used 64 (small) and 128 TPU v4 chips
Result:    not yet run; paper, large, guidance 1: FVD 41.7, FID-avg 12.5

Not in the paper's list: clipping, warm-up, the length of captions, and all
that only says how a run is watched.  Guidance is --guidance at sampling; the
paper's tables have 1, 2 and 5.
"""

from ml_collections import ConfigDict

from vdm_jax.config import choose, read_from, shrink


def get_config(variant: str = '') -> ConfigDict:
  models = 'small', 'large', 'frameskip4', 'upsampler'
  chosen = choose(variant, *models, 'list', 'packed', 'smoke')
  if len(chosen & {'small', 'large', 'upsampler'}) > 1:
    raise ValueError(
      f'variant {variant!r} is more than one model: choose one of small, large '
      'and upsampler.'
    )
  large = bool(chosen & {'large', 'upsampler'})
  config = ConfigDict(
    {
      'seed': 0,
      'data': {
        'name': 'folder',
        'path': '',
        'num_frames': 16,
        'height': 64,
        'width': 64,
        'frameskip': 4 if 'frameskip4' in chosen else 1,
        'fit': 'center',
        'flip': False,
        'captions': True,
      },
      'text': {'encoder': '', 'store': '', 'max_length': 64},
      'system': {
        'name': 'vdm',
        'parameterization': {'name': 'eps'},
        'loss_weight': 'eps',
        'schedule': {'name': 'cosine', 'logsnr_min': -20.0, 'logsnr_max': 20.0},
        'noise': {'name': 'independent'},
        'cond_dropout': 0.1,
      },
      'network': {
        'name': 'unet',
        'width': 256 if large else 128,
        'multipliers': (1, 2, 4, 8),
        'num_blocks': 2,
        'attention_resolutions': (8, 16, 32),
        'head_dim': 64,
        'embedding_dim': 1024,
        'embedding_layers': 4,
        'text_dim': 1024,
        'text': 'pool',
        'dropout': 0.0,
        'dtype': 'bfloat16',
      },
      'optimizer': {
        'name': 'adam',
        'learning_rate': 3e-4,
        'beta1': 0.9,
        'beta2': 0.99,
        'weight_decay': 0.0,
        'clip_norm': 1.0,
        'warmup_steps': 1000,
      },
      'train': {
        'num_steps': 700_000 if large else 200_000,
        'batch_size': 128,
        'num_images': 8,
        'ema_decay': 0.9999,
        'log_every': 100,
        'save_every': 1000,
        'look_every': 10_000,
      },
      'mesh': {'data': -1, 'fsdp': 1, 'model': 1},
      'sample': {
        'sampler': {'name': 'ancestral', 'variance_mix': 0.3},
        'num_steps': 256,
        'num': 16,
        'batch_size': 16,
      },
    }
  )
  if 'upsampler' in chosen:
    config.data.update(num_frames=9, height=128, width=128)
    config.network.update(width=128, multipliers=(1, 2, 4, 8, 16), head_dim=128)
    config.optimizer.learning_rate = 2e-4
    config.train.update(num_steps=800_000, num_images=7)
  if 'list' in chosen:
    read_from(config, 'list', file='', path='', layout='plain', split='')
  if 'packed' in chosen:
    read_from(config, 'packed', path='')
  if 'smoke' in chosen:
    shrink(config)
    if 'upsampler' in chosen:
      config.data.update(num_frames=3, height=32, width=32)
  return config
