"""Launchers: what is asked of the clouds' tools, which here only take notes.

The stand-ins for gcloud, xpk and SLURM write down how they were called, and
then do on this machine, with bash, what the real ones would do out there.
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LAUNCH = ROOT / 'launch'
LAUNCHERS = ['tpu_vm.sh', 'xpk.sh', 'slurm.sh']

# The only programs that a test can reach beside the stand-ins.
TOOLS = (
  'bash cat dirname env flock gzip mkdir mv nohup rm sed setsid sleep tar true'
)

NOTE = 'printf "%s\\0" "${0##*/}" "$@" $\'\\x1e\' >>"$NOTES"\n'
STAND_INS = {
  # git archive: what is in the tree now, committed or not.
  'git': """
for word in "$@"; do [[ $word != --output=* ]] || out=${word#*=}; done
tar -czf "$out" -C "$2" launch""",
  # ssh gives a worker's shell one string; scp copies to its home.
  'gcloud': """
case "$*" in
  *' tpu-vm scp '*) cp=("${@:5:2}")
    cat "${cp[0]}" >"$WORKER/${cp[1]#*:}" ;;
  *' tpu-vm ssh '*) for word in "$@"; do
      [[ $word != --command=* ]] || line=${word#*=}
    done
    cd "$WORKER" && HOME=$WORKER exec bash -c "$line" ;;
esac""",
  # Kubernetes expands what xpk puts behind bash -c.
  'xpk': """
for word in "$@"; do
  [[ $word != --command=* ]] || line=${word#*=}
done
[[ $line ]] || exit 0
line=${line//\\$\\$/$'\\x01'}
line=${line//'$(HOME)'/expanded} line=${line//$'\\x01'/$}
cd "$ROOT"
exec bash -c "trap 'kill -TERM \\$!' TERM; ($line) & wait \\$!; wait \\$!" """,
  'sbatch': """
for word in "$@"; do
  shift
  case $word in
    --chdir=*) cd "${word#*=}" ;;
    --cpus-per-task=*) export SLURM_CPUS_PER_TASK=${word#*=} ;;
    --*) ;;
    *) break ;;
  esac
done
SLURM_JOB_ID=7 bash "$word" "$@" || true""",
  'srun': """
while [[ $1 == --* ]]; do shift; done
"$@" """,
  # The job: ends as the first line of a file says.
  'python': """
read -r code <"$CODES" || code=0
sed -i 1d "$CODES"
case $code in
  wait) left=1000
    trap 'printf "term\\0\x1e\\0" >>"$NOTES"; left=20' TERM
    printf 'ready\\0\x1e\\0' >>"$NOTES"
    while ((left-- > 0)); do sleep 0.02; done
    exit 75 ;;
  1[3-9]?) kill -$((code - 128)) $$ ;;
  *) exit "$code" ;;
esac""",
  # Slow, so that a connection can end before a job has begun.
  'setsid': 'sleep 0.1; exec "${0%/*/*}/tools/setsid" "$@"',
  'mountpoint': 'false',
  **dict.fromkeys(
    ['mount.nfs', 'sudo', 'uv', 'docker', 'kubectl', 'scontrol', 'scancel'], ''
  ),
  'tail': '',
}


class Clouds:
  """The stand-ins, their notes, and a worker's home."""

  def __init__(self, path):
    self.path = path
    for name, text in STAND_INS.items():
      self._put('bin', name).write_text(f'#!/usr/bin/env bash\n{NOTE}{text}\n')
      (path / 'bin' / name).chmod(0o755)
    for name in TOOLS.split():
      self._put('tools', name).symlink_to(shutil.which(name) or '')
    self.state = path / 'worker' / 'vdm_jax_run'

  def _put(self, folder, name):
    (self.path / folder).mkdir(exist_ok=True)
    return self.path / folder / name

  def clear(self):
    for home in ('home', 'worker'):
      shutil.rmtree(self.path / home, ignore_errors=True)
      (self.path / home).mkdir()
    (self.path / 'notes').write_bytes(b'')
    (self.path / 'codes').write_text('')

  def ends_with(self, *codes):
    """Makes the next runs of the job end with these codes."""
    (self.path / 'codes').write_text(''.join(f'{code}\n' for code in codes))

  def call(self, *argv, tools='bin', **env):
    """Runs a command that knows the stand-ins only."""
    places = {
      'PATH': f'{self.path / tools}:{self.path / "tools"}',
      'HOME': str(self.path / 'home'),
      'WORKER': str(self.path / 'worker'),
      'NOTES': str(self.path / 'notes'),
      'CODES': str(self.path / 'codes'),
      'ROOT': str(ROOT),
      'VDM_JAX_PAUSE': '0',
      'LC_ALL': 'C.UTF-8',
    }
    return subprocess.run(
      [str(word) for word in argv],
      env={**places, **env},
      cwd=self.path,
      capture_output=True,
      text=True,
      timeout=30,
      start_new_session=True,
    )

  def launch(self, script, *argv, **env):
    return self.call(self.path / 'tools/bash', LAUNCH / script, *argv, **env)

  def calls(self, name=None):
    """Argument lists of all calls so far, in order, or those of one tool."""
    notes = (self.path / 'notes').read_bytes().decode().split('\0\x1e\0')
    calls = [note.split('\0') for note in notes[:-1]]
    return [call for call in calls if name in (None, call[0])]

  def set_up(self):
    """Gives the worker the code, as `setup` does."""
    shutil.copytree(LAUNCH, self.path / 'worker/vdm_jax/launch')

  def run_to_its_end(self, *job):
    """Runs a job on a worker; returns its code."""
    done = self.launch('tpu_vm.sh', 'run', *TPU, '--', *job)
    assert done.returncode == 0, done.stderr
    return self.until(lambda: (self.state / 'code').read_text())

  def until(self, look):
    """Returns what `look` sees once there is something."""
    for _ in range(1000):
      try:
        if seen := look():
          return seen
      except OSError:
        pass
      time.sleep(0.01)
    raise AssertionError('nothing came')


@pytest.fixture(scope='module')
def stand_ins(tmp_path_factory):
  return Clouds(tmp_path_factory.mktemp('clouds'))


@pytest.fixture
def clouds(stand_ins):
  stand_ins.clear()
  return stand_ins


TPU = '--name=n', '--zone=z'
XPK = '--name=n', '--cluster=c', '--image=i', '--device=v4-8', '--storage=s'
SLURM = '--nodes=2', '--gpus=8', '--time=1:00:00'
JOB = '--config=configs/ucf101.py', '--workdir=/mnt/share/a'
NASTY = (
  "--workdir=/mnt/it's a share",
  '--config.network.multipliers=(1, 2)',
  '$HOME ${HOME} $(HOME) $(id) `id` $$ $$$ \\$ !! "q" \\',
  'two\nlines $$ $(HOME)',
  '',
  '*',
  '~',
  '{a,b}',
  'größer',
  ''.join(map(chr, range(1, 127))),
)

# Each command of each launcher, with every option once.
COMMANDS = [
  ('tpu_vm.sh', 'create', *TPU, '--accelerator=v4-256', '--spot'),
  ('tpu_vm.sh', 'create', *TPU, '--accelerator', 'v5p-8', '--project=p'),
  ('tpu_vm.sh', 'create', *TPU, '--accelerator=v6e-8', '--network=a b'),
  ('tpu_vm.sh', 'create', *TPU, '--accelerator=x', '--runtime=y', '--reserved'),
  ('tpu_vm.sh', 'setup', *TPU),
  ('tpu_vm.sh', 'setup', *TPU, '--nfs=1.2.3.4:/a b', '--mount=/m', '--ref=r'),
  ('tpu_vm.sh', 'run', *TPU, '--', *NASTY),
  ('tpu_vm.sh', 'status', *TPU),
  ('tpu_vm.sh', 'logs', *TPU, '--worker=3'),
  ('tpu_vm.sh', 'stop', *TPU),
  ('tpu_vm.sh', 'delete', *TPU),
  ('xpk.sh', 'build', '--image=a b'),
  (
    'xpk.sh',
    'submit',
    *XPK,
    '--max-restarts=3',
    '--priority=low',
    '--',
    *NASTY,
  ),
  ('xpk.sh', 'submit', *XPK, '--project=p', '--zone=z', '--', *JOB),
  ('xpk.sh', 'logs', '--name=n'),
  ('xpk.sh', 'delete', '--name=n', '--cluster=c', '--project=p'),
  ('slurm.sh', 'submit', *SLURM, '--partition=p q', '--', *NASTY),
  (
    'slurm.sh',
    'submit',
    *SLURM,
    '--name=n',
    '--cpus=4',
    '--account=a',
    '--',
    *JOB,
  ),
  ('slurm.sh', 'logs', '--id=7'),
  ('slurm.sh', 'stop', '--id=7'),
]


def with_dry_run(command):
  """The command with --dry-run before what belongs to the job."""
  script, verb, *rest = command
  return script, verb, '--dry-run', *rest


@pytest.mark.parametrize(
  'path', sorted(LAUNCH.glob('*.sh')), ids=lambda p: p.name
)
def test_scripts_are_bash_and_short(path):
  subprocess.run(['bash', '-n', path], check=True)
  assert len(path.read_text(encoding='utf-8').splitlines()) < 150


@pytest.mark.parametrize(
  ('script', 'verb', 'options'),
  [('xpk.sh', 'submit', XPK), ('slurm.sh', 'submit', SLURM)],
)
def test_arguments_arrive_byte_for_byte(clouds, script, verb, options):
  done = clouds.launch(script, verb, *options, '--', *NASTY)
  assert done.returncode == 0, done.stderr
  expected = ['python', '-m', 'vdm_jax.main', '--distributed', *NASTY]
  assert clouds.calls('python') == [expected]


def test_arguments_arrive_at_a_tpu_worker(clouds):
  assert clouds.launch('tpu_vm.sh', 'setup', *TPU).returncode == 0
  assert clouds.run_to_its_end(*NASTY) == '0\n'
  expected = ['python', '-m', 'vdm_jax.main', '--distributed', *NASTY]
  assert clouds.calls('python') == [expected]


@pytest.mark.parametrize('command', COMMANDS, ids=lambda c: ' '.join(c[:3]))
def test_a_dry_run_prints_the_calls_that_a_run_makes(clouds, command):
  def settle():
    if command[1] == 'run':
      clouds.until(lambda: (clouds.state / 'code').read_text())

  def prepare():
    clouds.clear()
    if command[0] == 'tpu_vm.sh' and command[1] != 'setup':
      clouds.set_up()

  prepare()
  done = clouds.launch(*command)
  assert done.returncode == 0, done.stderr
  settle()
  calls = clouds.calls()
  assert calls

  prepare()
  dry = clouds.launch(*with_dry_run(command), tools='nothing')
  assert dry.returncode == 0, dry.stderr
  assert clouds.calls() == []

  for line in dry.stdout.splitlines():  # each alone: one command a line
    again = clouds.call(clouds.path / 'tools/bash', '-c', line)
    assert again.returncode == 0, again.stderr
  settle()
  assert clouds.calls() == calls


@pytest.mark.parametrize(
  ('codes', 'runs', 'last'),
  [
    ([0], 1, 0),
    ([1], 1, 1),
    ([2], 1, 2),
    ([75, 0], 2, 0),
    ([137, 143, 134, 1], 4, 1),
    ([75, 137, 2], 3, 2),
    ([137] * 9, 5, 137),  # within ten minutes
  ],
)
def test_a_job_is_run_again_where_that_helps(clouds, codes, runs, last):
  clouds.ends_with(*codes)
  done = clouds.launch('supervise.sh', 'python', 'a b', '$c')
  assert clouds.calls() == [['python', 'a b', '$c']] * runs
  assert done.returncode == last

  clouds.clear()
  clouds.set_up()
  clouds.ends_with(*codes)
  assert clouds.run_to_its_end(*JOB) == f'{last}\n'
  assert len(clouds.calls('python')) == runs


@pytest.mark.parametrize(
  ('code', 'restarts', 'again'),
  [
    (0, 0, False),
    (1, 0, False),
    (2, 0, False),
    (75, 0, True),
    (75, 99, True),
    (137, 19, True),
    (137, 20, False),
  ],
)
def test_a_slurm_job_queues_again_where_that_helps(
  clouds, code, restarts, again
):
  clouds.ends_with(code)
  env = {'SLURM_JOB_ID': '7', 'SLURM_CPUS_PER_TASK': '8'}
  if restarts:
    env['SLURM_RESTART_COUNT'] = str(restarts)
  done = clouds.launch('slurm_job.sh', *JOB, **env)
  assert done.returncode == code
  requeued = clouds.calls('scontrol')
  assert requeued == [['scontrol', 'requeue', '7']] * again


def test_stop_saves_and_is_the_end(clouds):
  clouds.set_up()
  clouds.ends_with('wait', 0)
  started = clouds.launch(
    'tpu_vm.sh', 'run', *TPU, '--', *JOB, VDM_JAX_PAUSE='60'
  )
  assert started.returncode == 0, started.stderr
  clouds.until(lambda: clouds.calls('ready'))
  assert 'running' in clouds.launch('tpu_vm.sh', 'status', *TPU).stdout

  for verb in ('run', 'setup'):  # the job's folder is in use
    job = ('--', *JOB) if verb == 'run' else ()
    refused = clouds.launch('tpu_vm.sh', verb, *TPU, *job)
    assert refused.returncode == 2
    assert re.fullmatch(r'error: .*a job runs here.*\n', refused.stderr)

  os.kill(int((clouds.state / 'pid').read_text()), signal.SIGTERM)
  clouds.until(lambda: clouds.calls('term'))
  stopped = clouds.launch('tpu_vm.sh', 'stop', *TPU)
  assert 'stopped, exit code 75' in stopped.stdout
  assert len(clouds.calls('python')) == 1
  assert len(clouds.calls('term')) == 1  # a second would end it unsaved
  assert clouds.run_to_its_end(*JOB) == '0\n'  # goes on


def test_stop_between_two_runs_is_the_end(clouds):
  clouds.set_up()
  clouds.ends_with(137)
  clouds.launch('tpu_vm.sh', 'run', *TPU, '--', *JOB, VDM_JAX_PAUSE='60')
  clouds.until(lambda: 'again' in (clouds.state / 'log').read_text())
  stopped = clouds.launch('tpu_vm.sh', 'stop', *TPU)
  assert 'stopped, exit code 137' in stopped.stdout
  assert len(clouds.calls('python')) == 1


def test_a_job_outlives_the_connection(clouds):
  clouds.set_up()
  clouds.ends_with('wait')
  line = shlex.join(
    ['bash', str(LAUNCH / 'tpu_vm.sh'), 'run', *TPU, '--', *JOB]
  )
  # What is left in the connection's session dies with it.
  clouds.call('bash', '-c', f'{line}; trap "" HUP; kill -HUP 0; sleep 0.1')
  clouds.until(lambda: clouds.calls('ready'))
  assert 'running' in clouds.launch('tpu_vm.sh', 'status', *TPU).stdout
  clouds.launch('tpu_vm.sh', 'stop', *TPU)


def test_a_container_that_is_evicted_has_saved_and_may_start_again(clouds):
  clouds.ends_with('wait')
  (line,) = clouds.launch(
    *with_dry_run(('xpk.sh', 'submit', *XPK, '--', *JOB))
  ).stdout.splitlines()
  places = {
    'PATH': f'{clouds.path / "bin"}:{clouds.path / "tools"}',
    'NOTES': str(clouds.path / 'notes'),
    'CODES': str(clouds.path / 'codes'),
    'ROOT': str(ROOT),
  }
  pod = subprocess.Popen(
    shlex.split(line), env=places, stderr=subprocess.DEVNULL
  )
  clouds.until(lambda: clouds.calls('ready'))
  pod.send_signal(signal.SIGTERM)
  assert pod.wait(timeout=30) == 75
  assert '--restart-on-exit-codes=75' in line
  assert len(clouds.calls('python')) == 1


@pytest.mark.parametrize(
  ('command', 'says'),
  [
    ('tpu_vm.sh creat', 'create, setup, run'),
    ('tpu_vm.sh create --zone=z --accelerator=v4-8', '--name=VALUE'),
    ('tpu_vm.sh create --name=n --zone=z', '--accelerator=VALUE'),
    ('tpu_vm.sh create --name=n --zone=z --accelerator=h100', 'v5litepod-N'),
    (
      'tpu_vm.sh create --name=n --zone=z --accelerator=v4-8 --spot --reserved',
      'leave one out',
    ),
    ('tpu_vm.sh create --name=n --zone=z --spot=yes', '--spot alone'),
    ('tpu_vm.sh delete --name=n --zone', '--zone=VALUE'),
    ('tpu_vm.sh delete --name= --zone=z', '--name=VALUE'),
    ('tpu_vm.sh delete --name --zone=z', '--name=VALUE'),
    ('tpu_vm.sh delete --name=n --zone=z --spot', 'allowed are'),
    ('tpu_vm.sh delete --name=n --zone=z "--name zone"', 'allowed are'),
    ('tpu_vm.sh delete n', 'allowed are'),
    ('tpu_vm.sh delete --name=n --zone=z -- x', 'takes no job'),
    ('tpu_vm.sh setup --name=n --zone=z --mount=share', 'begin with /'),
    ('tpu_vm.sh run --name=n --zone=z', '--workdir='),
    ('tpu_vm.sh run --name=n --zone=z -- --workdir=gs://b/a', 'mount it'),
    ('tpu_vm.sh run --name=n --zone=z -- --workdir gs://b/a', 'mount it'),
    ('tpu_vm.sh run --name=n --zone=z -- --workdir=runs/a', 'absolute path'),
    ('xpk.sh submit --name=n -- --workdir=/a', '--cluster=VALUE'),
    ('xpk.sh start', 'build, submit, logs'),
    ('slurm.sh submit --nodes=2 --gpus=8 -- --workdir=/a', '--time=VALUE'),
    ('slurm.sh stop --job=4', 'allowed are --id'),
    ('slurm.sh cancel', 'submit, logs or stop'),
  ],
)
def test_bad_input_is_one_sentence_and_no_call(clouds, command, says):
  done = clouds.launch(*shlex.split(command))
  assert done.returncode == 2
  assert re.fullmatch(r'error: [^\n]+\.\n', done.stderr)
  assert says in done.stderr
  assert not done.stdout
  assert clouds.calls() == []


@pytest.mark.parametrize('command', COMMANDS, ids=lambda c: ' '.join(c[:3]))
def test_a_missing_tool_is_named_first(clouds, command):
  if command[:2] == ('slurm.sh', 'logs'):
    return  # has tail
  done = clouds.launch(*command, tools='nothing')
  assert done.returncode == 2
  assert re.match(r'error: \w+ is not on PATH: install ', done.stderr)
  assert not (clouds.path / 'home/.cache').exists()


@pytest.mark.parametrize('script', LAUNCHERS)
def test_help_shows_what_is_allowed(clouds, script):
  help_text = clouds.launch(script, '--help').stdout
  shown = set(re.findall(r'--[a-z-]*[a-z]', help_text)) - {'--mode'}
  verbs = {command[1] for command in COMMANDS if command[0] == script}
  allowed = set()
  for verb in verbs:
    assert f'{script} {verb} ' in help_text
    refused = clouds.launch(script, verb, '--nonsense').stderr
    allowed |= set(re.findall(r'--[a-z-]+', refused.split('allowed are')[1]))
  assert shown - {'--config', '--workdir', '--distributed'} == allowed


@pytest.mark.parametrize('script', LAUNCHERS)
def test_examples_of_the_help_are_accepted(clouds, script):
  lines = clouds.launch(script, '--help').stdout
  text = re.sub(r'\n +(?=[\[-])', ' ', lines)
  examples = re.findall(r'^  launch/\S+ (.*)', text, flags=re.MULTILINE)
  assert len(examples) >= 3
  for example in examples:
    for one in (0, -1):  # of [a | b]
      words = ''.join(
        part.split(' | ')[one] for part in re.split(r'[][]', example)
      ).replace('FOLDER', '/f')
      done = clouds.launch(*with_dry_run((script, *words.split())))
      assert done.returncode == 0, (words, done.stderr)


def test_delete_names_what_create_named(clouds):
  where = ('--name=mine', '--zone=z', '--project=p')
  clouds.launch('tpu_vm.sh', 'create', *where, '--accelerator=v4-8')
  clouds.launch('tpu_vm.sh', 'delete', *where)
  made, gone = clouds.calls('gcloud')
  assert made[3:6] == ['queued-resources', 'create', 'mine']
  assert '--node-id=mine' in made
  assert gone[3:6] == ['queued-resources', 'delete', 'mine']
  assert set(gone[6:]) == {'--zone=z', '--project=p', '--force'}
  assert set(made) >= {'--zone=z', '--project=p'}

  clouds.clear()
  where = ('--name=mine', '--cluster=c', '--project=p', '--zone=z')
  clouds.launch('xpk.sh', 'submit', *where, *XPK[2:], '--', *JOB)
  clouds.launch('xpk.sh', 'delete', *where)
  made, gone = clouds.calls('xpk')
  assert gone[1:3] == ['workload', 'delete']
  assert set(gone[3:]) <= set(made)
  assert '--workload=mine' in gone


def documented():
  """(command, what it prints) of the dry runs in docs/pod.md."""
  text = (ROOT / 'docs/pod.md').read_text(encoding='utf-8')
  blocks = re.findall(r'```console\n\$ (.*?)```', text, flags=re.DOTALL)
  for block in blocks:
    command, _, printed = block.replace('\\\n', '').partition('\n')
    if '--dry-run' in command:
      yield command, printed


@pytest.mark.parametrize(('command', 'printed'), list(documented()))
def test_the_walk_through_shows_what_is_printed(clouds, command, printed):
  script, *rest = shlex.split(command)
  done = clouds.launch(
    pathlib.Path(script).name, *rest, HOME='/home/me', tools='nothing'
  )
  assert done.stdout.replace(str(ROOT), '/home/me/vdm_jax') == printed
