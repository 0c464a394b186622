"""Archives from others: files come out whole, and only below the folder."""

import io
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from tests.command_line import command
from vdm_jax.data import archive
from vdm_jax.data.archive import unpack
from vdm_jax.data.folder import VideoFolder
from vdm_jax.video import save


def make(path, members):
  """An archive of (name, content); content is bytes, or a link's target."""
  if path.suffix == '.zip':
    with zipfile.ZipFile(path, 'w') as file:
      for name, content in members:
        info = zipfile.ZipInfo(name)
        if isinstance(content, str):
          info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, content)
    return path
  with tarfile.open(path, 'w:gz' if path.suffix == '.gz' else 'w') as file:
    for name, content in members:
      info = tarfile.TarInfo(name)
      if isinstance(content, str):
        info.type, info.linkname = tarfile.SYMTYPE, content
        file.addfile(info)
      else:
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
  return path


KINDS = ('a.zip', 'a.tar', 'a.tar.gz')


@pytest.mark.parametrize('kind', KINDS)
def test_videos_come_out_as_they_went_in(tmp_path, kind, capsys):
  video = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3))
  save(tmp_path / 'v.gif', video)
  content = (tmp_path / 'v.gif').read_bytes()
  members = [
    ('x/y/v.gif', content),
    ('x/v.txt', b'caption'),
    ('w.gif', content),
  ]
  path = make(tmp_path / kind, members)
  command(tmp_path / 'out', '--mode=unpack', f'--archive={path}')
  assert '3 files' in capsys.readouterr().out
  found = {
    path.relative_to(tmp_path / 'out').as_posix(): path.read_bytes()
    for path in (tmp_path / 'out').rglob('*')
    if path.is_file()
  }
  assert found == dict(members)
  assert len(VideoFolder(tmp_path / 'out', 4, 16, 16)) == 2


BAD = {
  'climbs out': ('../evil', b'x', 'leads outside'),
  'climbs out later': ('a/../../evil', b'x', 'leads outside'),
  'is absolute': ('/evil', b'x', 'leads outside'),
  'is of a drive': ('C:\\evil', b'x', 'leads outside'),
  'climbs out by backslashes': ('..\\evil', b'x', 'leads outside'),
  'is a link': ('link', '/etc', 'link or a device'),
  'is there twice': ('GOOD', b'x', 'in it twice'),
}


@pytest.mark.fault(25)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('case', BAD)
def test_nothing_of_an_archive_with_a_bad_member_is_left(tmp_path, kind, case):
  name, content, message = BAD[case]
  inner = tmp_path / 'inner'
  inner.mkdir()
  path = make(tmp_path / kind, [('good', b'x'), (name, content)])
  with pytest.raises(ValueError, match=message):
    unpack(path, inner / 'out')
  assert not list(inner.iterdir())
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted([kind, 'inner'])


@pytest.mark.fault(25)
@pytest.mark.parametrize('kind', ['a.zip', 'a.tar.gz'])
def test_an_archive_that_would_fill_the_disk_is_refused(
  tmp_path, kind, monkeypatch
):
  monkeypatch.setattr(archive, '_FREE', 1000)
  members = [('bomb', bytes(10**7))]
  path = tmp_path / kind
  if kind == 'a.zip':
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
      file.writestr(*members[0])
  else:
    make(path, members)
  with pytest.raises(ValueError, match='100 times its own size'):
    unpack(path, tmp_path / 'out')
  assert [p.name for p in tmp_path.iterdir()] == [kind]


@pytest.mark.fault(25)
@pytest.mark.parametrize('kind', KINDS)
def test_a_damaged_archive_is_refused(tmp_path, kind):
  noise = np.random.default_rng(0).bytes(50_000)
  path = make(tmp_path / kind, [('a', noise), ('b', noise)])
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) * 2 // 3])
  with pytest.raises(ValueError, match='damaged'):
    unpack(path, tmp_path / 'out')
  path.write_bytes(b'no archive at all')
  with pytest.raises(ValueError, match='damaged'):
    unpack(path, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_what_is_no_archive_or_no_free_place_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='no archive'):
    unpack(tmp_path / 'none.zip', tmp_path / 'out')
  (tmp_path / 'a.rar').touch()
  with pytest.raises(ValueError, match=r'use one of \.zip'):
    unpack(tmp_path / 'a.rar', tmp_path / 'out')
  path = make(tmp_path / 'a.zip', [('a', b'x')])
  with pytest.raises(FileExistsError, match='does not'):
    unpack(path, tmp_path)
  with pytest.raises(ValueError, match='holds no files'):
    unpack(make(tmp_path / 'b.tar', []), tmp_path / 'out')
