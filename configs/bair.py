"""Video prediction on BAIR Robot Pushing, 1 frame to 15.

Paper:     Video Diffusion Models (Ho et al. 2022), Appendix A.2 and Table 2
Command:   python -m vdm_jax.main --config=configs/bair.py --workdir=runs/bair
Variants:  --config=configs/bair.py:folder  (videos below config.data.path)
           --config=configs/bair.py:packed  (written by --mode=pack)
           --config=configs/bair.py:smoke   (two steps, for tests)
Data:      tfds build bair_robot_pushing_small --file_format=array_record
Hardware:  the paper used 128 TPU v4 chips
Result:    not yet run; paper: FVD 66.92 with the Langevin corrector

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
        'builder': 'bair_robot_pushing_small',
        'split': 'train',
        'frames': 'image_aux1',
        'data_dir': '',
        'num_frames': 16,
        'height': 64,
        'width': 64,
        'frameskip': 1,
        'fit': 'center',
        'flip': True,
      },
      'system': {
        'name': 'vdm',
        'parameterization': {'name': 'v'},
        'loss_weight': 'v',
        'schedule': {'name': 'cosine', 'logsnr_min': -20.0, 'logsnr_max': 20.0},
        'noise': {'name': 'independent'},
      },
      'network': {
        'name': 'unet',
        'width': 128,
        'multipliers': (1, 2, 3, 4),
        'num_blocks': 3,
        'attention_resolutions': (8, 16, 32),
        'head_dim': 64,
        'embedding_dim': 1024,
        'embedding_layers': 2,
        'dropout': 0.1,
        'dtype': 'bfloat16',
      },
      'optimizer': {
        'name': 'adam',
        'learning_rate': 2e-4,
        'beta1': 0.9,
        'beta2': 0.999,
        'weight_decay': 0.01,
        'clip_norm': 1.0,
        'warmup_steps': 1000,
      },
      'train': {
        'num_steps': 660_000,
        'batch_size': 128,
        'num_images': 8,
        'ema_decay': 0.999,
        'log_every': 100,
        'save_every': 1000,
        'look_every': 10_000,
      },
      'mesh': {'data': -1, 'fsdp': 1, 'model': 1},
      'sample': {
        'sampler': {'name': 'ancestral', 'variance_mix': 0.0},
        'num_steps': 256,
        'corrector': {'name': 'langevin', 'step_size': 0.1},
        'reconstruction_weight': 50.0,
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
