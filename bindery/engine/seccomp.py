"""A seccomp filter: which system calls a decoder may make. Classic BPF, assembled here and loaded through ctypes; no package needed.

It forbids rather than lists what is allowed, since codecs and libc change what they call. Forbidden calls fail with
EPERM, so that a codec which merely tries something gets an ordinary error; nothing is killed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

# name: (x86-64, aarch64); None where the architecture never had it
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # the network, other processes' sockets, descriptors sent by others, and the ring that does all of this unseen
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "recvmsg": (47, 212),
    "recvmmsg": (299, 243),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # other programs and other processes
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # changes to files (opening for writing is below)
    "creat": (85, None),
    "truncate": (76, 45),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "memfd_create": (319, 279),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # the machine, and doors into the kernel that no codec needs
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "quotactl": (179, 60),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "unshare": (272, 97),
    "setns": (308, 268),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "personality": (135, 92),
    "iopl": (172, None),
    "ioperm": (173, None),
    "syslog": (103, 116),
    "capset": (126, 91),
}
# Allowed or not by their arguments, or answered "not implemented" so that libc takes the older call, which can be judged.
_OPEN, _OPENAT, _CLONE, _TGKILL = (2, None), (257, 56), (56, 220), (234, 131)
_PRLIMIT, _SETRLIMIT, _SECCOMP = (302, 261), (160, 164), (317, 277)
_UNIMPLEMENTED = (435, 437)  # clone3, openat2: their arguments lie behind a pointer, out of a filter's sight

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH word
_X32 = 0x40000000  # numbers from here up are a second x86-64 convention, with its own way to every call

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6], little-endian
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CLONE_THREAD = 0x00010000
_SET_MODE_FILTER, _ALL_THREADS = 1, 1

Program = list[tuple[int, int, int, int]]  # code, jump if true, jump if false, constant


def load_filter() -> str | None:
    """Put this process, and every thread of it, under the filter for good. Returns why not, or None. Needs no_new_privs."""
    if platform.machine() not in _ARCHITECTURES:
        return f"seccomp: there is no filter for {platform.machine()}"
    column, _ = _ARCHITECTURES[platform.machine()]
    program = b"".join(struct.pack("<HBBI", *instruction) for instruction in build(platform.machine(), os.getpid()))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SECCOMP[column], _SET_MODE_FILTER, _ALL_THREADS, ctypes.c_char_p(header)) != 0:
        return f"seccomp: the kernel refused the filter ({os.strerror(ctypes.get_errno())})"
    return None


def build(machine: str, own_pid: int) -> Program:
    """The filter's instructions for ``machine``, in which signals may go to ``own_pid`` alone."""
    column, arch = _ARCHITECTURES[machine]
    program: Program = [(_LOAD, 0, 0, _ARCH), (_IF_EQUAL, 1, 0, arch), _deny(), (_LOAD, 0, 0, _NR)]
    if machine == "x86_64":
        program += [(_IF_AT_LEAST, 0, 1, _X32), _deny()]
    for number in (numbers[column] for numbers in _FORBIDDEN.values()):
        program += [] if number is None else [(_IF_EQUAL, 0, 1, number), _deny()]
    for number in _UNIMPLEMENTED:
        program += [(_IF_EQUAL, 0, 1, number), _deny(errno.ENOSYS)]
    for number, flags_at in ((_OPEN[column], 1), (_OPENAT[column], 2)):
        program += _when(number, [_argument(flags_at), (_IF_ANY_BIT, 0, 1, _WRITES), _deny()])
    program += _when(_CLONE[column], [_argument(0), (_IF_ANY_BIT, 1, 0, _CLONE_THREAD), _deny()])
    program += _when(_TGKILL[column], [_argument(0), (_IF_EQUAL, 1, 0, own_pid), _deny()])
    # Of the limits only CPU time (number 0) of this process may change: it is renewed for every task. Reading is free.
    program += _when(_SETRLIMIT[column], [_argument(0), (_IF_EQUAL, 1, 0, 0), _deny()])
    reads = [_argument(2), (_IF_EQUAL, 0, 3, 0), _argument(2, high=True), (_IF_EQUAL, 0, 1, 0), (_RETURN, 0, 0, _ALLOW)]
    own_cpu = [_argument(0), (_IF_EQUAL, 1, 0, 0), _deny(), _argument(1), (_IF_EQUAL, 1, 0, 0), _deny()]
    program += _when(_PRLIMIT[column], reads + own_cpu)
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _when(number: int | None, block: Program) -> Program:
    """``block`` for the call ``number``, which is allowed when the block ends; the call's number stays loaded for the others."""
    if number is None:
        return []
    return [(_IF_EQUAL, 0, len(block) + 1, number), *block, (_RETURN, 0, 0, _ALLOW)]


def _argument(index: int, *, high: bool = False) -> tuple[int, int, int, int]:
    return _LOAD, 0, 0, _ARGUMENTS + 8 * index + (4 if high else 0)


def _deny(error: int = errno.EPERM) -> tuple[int, int, int, int]:
    return _RETURN, 0, 0, _ERRNO | error
