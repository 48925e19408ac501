"""`repae teachers`."""

from __future__ import annotations

from repae.cli.arguments import Arguments, Command, say

_MORE = """\
Tokens are those of images with 256 and 512 px on a side: as many as the SiT has, whatever the teacher's patch.
A gated teacher's authors hand out their files after their licence has been accepted; a file from elsewhere is given as
--teachers.0.weights FILE.

  repae train repae-sdvae-xl2 --teachers dinov2-b,clip-l
  repae train repae-sdvae-xl2 --teachers mocov3-b --teachers.0.weights vit-b-300ep.pth.tar

The reference's names (dinov2-vit-b, clip-vit-L) are understood, and so is any plain vision transformer of timm by its
full name. Nothing needs to be fetched for `embedded`, a small teacher that a run trains first, and for a denoiser that
teaches itself (--method.self-teacher.depth N with method repa)."""


def _teachers(arguments: Arguments) -> None:
    arguments.at_most(0)
    arguments.nothing_left()
    from repae.models.teachers.catalogue import table

    say(table())


COMMANDS = {
    "teachers": Command(
        "", "list the pretrained teachers: width, tokens, licence, where to get them", _teachers, more=_MORE
    )
}
