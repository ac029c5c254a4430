"""Debian 13's Amazon machine images and the public SSM parameters that name them.

ministack 1.5.33 knows Amazon Linux, Ubuntu and Windows images only.
"""

from collections.abc import Callable

from lab.cloud.emulator.upstream import ec2, ssm, wrap

# The account that publishes Debian's images: wiki.debian.org/Cloud/AmazonEC2Image
_DEBIAN = "136693071363"
_DEBIAN_13 = {"amd64": "ami-0deb1a00000000a64", "arm64": "ami-0deb1a00000000a61"}
_EC2_ARCHITECTURE = {"amd64": "x86_64", "arm64": "arm64"}


def install() -> None:
    for architecture, image_id in _DEBIAN_13.items():
        name = f"debian-13-{architecture}"
        ec2._STUB_AMIS.append((image_id, name, "Debian 13", "", "/dev/xvda", _DEBIAN, None))
        parameter = f"/aws/service/debian/release/13/latest/{architecture}"
        ssm._PUBLIC_AMI_PARAMETERS[parameter] = image_id
    wrap(vars(ec2), "_stub_image_view", _image_view)


def _image_view(
    original: Callable[..., dict[str, str]], image_id: str, *rest: str
) -> dict[str, str]:
    """An image as DescribeImages shows it; ministack takes every built-in image for x86_64."""
    view = original(image_id, *rest)
    for architecture, debian_image_id in _DEBIAN_13.items():
        if image_id == debian_image_id:
            view["Architecture"] = _EC2_ARCHITECTURE[architecture]
    return view


def architecture(image_id: str) -> str:
    """``x86_64`` or ``arm64``, as an instance started from the image has it."""
    return _EC2_ARCHITECTURE["arm64" if image_id == _DEBIAN_13["arm64"] else "amd64"]
