"""Unconditional videos of UCF101.

Paper:     Video Diffusion Models (Ho et al. 2022), Appendix A.1 and Table 1
Command:   python -m vdm_jax.main --config=configs/ucf101.py \
             --workdir=runs/ucf101
Variants:  --config=configs/ucf101.py:folder  (clips below config.data.path)
           --config=configs/ucf101.py:packed  (written by --mode=pack)
           --config=configs/ucf101.py:smoke   (two steps, for tests)
Data:      all 13,320 videos: tfds build ucf101 --file_format=array_record
Hardware:  the paper used 128 TPU v4 chips
Result:    not yet run; paper: FID 295, IS 57, by C3D on 10,000 samples

Not in the paper's list: clipping, warm-up, and all that only says how a run is
watched.
"""

from ml_collections import ConfigDict

from vdm_jax.config import choose, read_from, shrink


def get_config(variant: str = '') -> ConfigDict:
  chosen = choose(variant, 'folder', 'packed', 'smoke')
  config = ConfigDict(
    {
      'seed': 0,
      'data': {
        'name': 'tfds',
        'builder': 'ucf101',
        'split': 'train+test',
        'data_dir': '',
        'num_frames': 16,
        'height': 64,
        'width': 64,
        'frameskip': 1,
        'fit': 'center',
        'flip': False,
      },
      'system': {
        'name': 'vdm',
        'parameterization': {'name': 'eps'},
        'loss_weight': 'eps',
        'schedule': {'name': 'cosine', 'logsnr_min': -20.0, 'logsnr_max': 20.0},
        'noise': {'name': 'independent'},
      },
      'network': {
        'name': 'unet',
        'width': 256,
        'multipliers': (1, 2, 4, 8),
        'num_blocks': 2,
        'attention_resolutions': (8, 16, 32),
        'head_dim': 64,
        'embedding_dim': 1024,
        'embedding_layers': 4,
        'dropout': 0.1,
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
        'num_steps': 60_000,
        'batch_size': 128,
        'num_images': 8,
        'ema_decay': 0.9999,
        'log_every': 100,
        'save_every': 1000,
        'look_every': 10_000,
      },
      'mesh': {'data': -1, 'fsdp': 1, 'model': 1},
      'sample': {
        'sampler': {'name': 'ancestral', 'variance_mix': 0.1},
        'num_steps': 256,
        'num': 16,
        'batch_size': 16,
      },
    }
  )
  for source in ('folder', 'packed'):
    if source in chosen:
      read_from(config, source, path='')
  if 'smoke' in chosen:
    shrink(config)
  return config
