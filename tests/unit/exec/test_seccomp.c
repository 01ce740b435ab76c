#include "../unit.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exec/sandbox/seccomp.h"

/* --- an interpreter for the instructions that the generator uses --- */

struct call {
    uint32_t nr, arch;
    uint64_t ip, args[6];
};

static uint32_t judge(const struct mu_seccomp_program *p, const struct call *c)
{
    uint32_t a = 0;
    for (unsigned pc = 0; pc < p->len; pc++) {
        const struct sock_filter *f = &p->code[pc];
        switch (f->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            assert_true(f->k + 4 <= sizeof *c && f->k % 4 == 0);
            memcpy(&a, (const char *)c + f->k, sizeof a);
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            pc += a == f->k ? f->jt : f->jf;
            break;
        case BPF_JMP | BPF_JGT | BPF_K:
            pc += a > f->k ? f->jt : f->jf;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            pc += a & f->k ? f->jt : f->jf;
            break;
        case BPF_RET | BPF_K:
            return f->k;
        default:
            fail_msg("instruction %x", f->code);
        }
    }
    fail_msg("ran off the end");
    return 0;
}

enum { X86 = MU_SECCOMP_X86_64, ARM = MU_SECCOMP_AARCH64 };
#define ERRNO(e) (SECCOMP_RET_ERRNO | (uint32_t)(e))

static uint32_t ask(const struct mu_seccomp_rules *r, int nr, uint64_t a0, uint64_t a1, uint64_t a2,
                    uint64_t a3)
{
    struct mu_seccomp_program p;
    mu_seccomp_build(r, &p);
    struct call c = {
        (uint32_t)nr, (uint32_t)(r->arch ? r->arch : MU_SECCOMP_HERE), 0, {a0, a1, a2, a3, 0, 0}};
    return judge(&p, &c);
}

static void other_architectures_and_x32_are_killed(void **state)
{
    (void)state;
    struct mu_seccomp_rules r = {.arch = X86};
    struct mu_seccomp_program p;
    mu_seccomp_build(&r, &p);
    struct call i386 = {1, 0x40000003, 0, {0}};
    struct call x32 = {0x40000000 + 1, (uint32_t)X86, 0, {0}};
    struct call plain = {1, (uint32_t)X86, 0, {0}};
    struct call skipped = {0xffffffff, (uint32_t)X86, 0, {0}};
    assert_int_equal(judge(&p, &i386), SECCOMP_RET_KILL_PROCESS);
    assert_int_equal(judge(&p, &x32), SECCOMP_RET_KILL_PROCESS);
    assert_int_equal(judge(&p, &plain), SECCOMP_RET_ALLOW);
    assert_int_equal(judge(&p, &skipped), ERRNO(ENOSYS));
}

static void above_the_ceiling_everything_is_unknown(void **state)
{
    (void)state;
    for (int arch = 0; arch < 2; arch++) {
        struct mu_seccomp_rules r = {.arch = arch ? ARM : X86};
        assert_int_equal(ask(&r, 469, 0, 0, 0, 0), SECCOMP_RET_ALLOW);
        for (int nr = 470; nr < 1200; nr++) {
            assert_int_equal(ask(&r, nr, 0, 0, 0, 0), ERRNO(ENOSYS));
        }
        r.ceiling = 461;
        assert_int_equal(ask(&r, 462, 0, 0, 0, 0), ERRNO(ENOSYS));
        r.nested = r.fake_root = true;
        assert_int_equal(ask(&r, 470, 0, 0, 0, 0), ERRNO(ENOSYS));
    }
}

static void ioctls_are_compared_by_their_low_word(void **state)
{
    (void)state;
    struct mu_seccomp_rules r = {.arch = X86};
    static const uint64_t refused[] = {0x5412, 0x541c, 0x5423, 0x541d};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ask(&r, 16, 0, refused[i], 0, 0), ERRNO(EPERM));
        assert_int_equal(ask(&r, 16, 0, refused[i] | 1ULL << 32, 0, 0), ERRNO(EPERM));
        assert_int_equal(ask(&r, 16, 0, refused[i] | 1ULL << 63, 0, 0), ERRNO(EPERM));
    }
    assert_int_equal(ask(&r, 16, 0, 0x5413, 0, 0), SECCOMP_RET_ALLOW);
}

static void sockets_are_unix_inet_and_route_only(void **state)
{
    (void)state;
    struct mu_seccomp_rules r = {.arch = ARM}, weak = {.arch = ARM, .only_unix = true};
    for (uint64_t family = 0; family < 64; family++) {
        for (uint64_t proto = 0; proto < 300; proto++) {
            bool inet = (family == 2 || family == 10) && (proto == 0 || proto == 6 || proto == 17);
            bool ok = family == 1 || inet || (family == 16 && proto == 0);
            uint32_t got = ask(&r, 198, family, 1, proto, 0);
            bool known = family == 2 || family == 10 || family == 16;
            assert_int_equal(got, ok      ? SECCOMP_RET_ALLOW
                                  : known ? ERRNO(EPROTONOSUPPORT)
                                          : ERRNO(EAFNOSUPPORT));
        }
        assert_int_equal(ask(&weak, 198, family, 1, 0, 0),
                         family == 1 ? SECCOMP_RET_ALLOW : ERRNO(EAFNOSUPPORT));
    }
}

static void namespaces_are_refused_unless_nested(void **state)
{
    (void)state;
    struct mu_seccomp_rules r = {.arch = X86}, nested = {.arch = X86, .nested = true};
    static const uint64_t flags[] = {0x20000,    0x2000000,  0x4000000, 0x8000000,
                                     0x10000000, 0x20000000, 0x40000000};
    for (int i = 0; i < 7; i++) {
        assert_int_equal(ask(&r, 56, flags[i] | 17, 0, 0, 0), ERRNO(EPERM));
        assert_int_equal(ask(&r, 272, flags[i], 0, 0, 0), ERRNO(EPERM));
        assert_int_equal(ask(&nested, 272, flags[i], 0, 0, 0), SECCOMP_RET_ALLOW);
    }
    assert_int_equal(ask(&r, 272, 0x80, 0, 0, 0), ERRNO(EPERM));
    assert_int_equal(ask(&r, 272, 0x400 | 0x200, 0, 0, 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask(&r, 56, 0x3d0f00, 0, 0, 0), SECCOMP_RET_ALLOW); /* a thread */
    assert_int_equal(ask(&r, 435, 0, 0, 0, 0), ERRNO(ENOSYS));
    assert_int_equal(ask(&nested, 165, 0, 0, 0, 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask(&nested, 321, 0, 0, 0, 0), ERRNO(EPERM));
}

static void set_id_bits_are_refused_however_they_are_asked_for(void **state)
{
    (void)state;
    struct mu_seccomp_rules r = {.arch = X86}, fake = {.arch = X86, .fake_root = true};
    struct {
        int nr;
        uint64_t a[4];
    } bad[] = {
        {90, {0, 04755, 0, 0}},
        {91, {0, 02755, 0, 0}},
        {268, {0, 0, 06000, 0}},
        {452, {0, 0, 04000, 0}},
        {85, {0, 04755, 0, 0}},
        {2, {0, 0101, 04755, 0}},
        {257, {0, 0, 0101, 04755}},
        {257, {0, 0, 020200000, 04755}},
        {133, {0, 0104755, 0, 0}},
        {259, {0, 0, 0104755, 0}},
        {90, {0, 1ULL << 40 | 04755, 0, 0}},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        uint64_t *a = bad[i].a;
        assert_int_equal(ask(&r, bad[i].nr, a[0], a[1], a[2], a[3]), ERRNO(EPERM));
        assert_int_equal(ask(&fake, bad[i].nr, a[0], a[1], a[2], a[3]), SECCOMP_RET_ALLOW);
    }
    assert_int_equal(ask(&r, 90, 0, 01777, 0, 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask(&r, 2, 0, 0, 04755, 0), SECCOMP_RET_ALLOW); /* nothing is created */
    assert_int_equal(ask(&r, 437, 0, 0, 0, 0), ERRNO(ENOSYS));       /* openat2 hides its mode */
}

static void the_fake_root_of_one_id_is_told_success(void **state)
{
    (void)state;
    struct mu_seccomp_rules one = {.arch = X86, .fake_root = true, .one_id = true};
    struct mu_seccomp_rules range = {.arch = X86, .fake_root = true};
    struct mu_seccomp_rules plain = {.arch = X86, .one_id = true};
    static const int calls[] = {92, 93, 94, 260, 116, 105, 106, 113, 114, 117, 119, 122, 123, 126};
    for (size_t i = 0; i < MU_ARRAY_LEN(calls); i++) {
        assert_int_equal(ask(&one, calls[i], 0, 0, 0, 0), ERRNO(0));
        assert_int_equal(ask(&range, calls[i], 0, 0, 0, 0), SECCOMP_RET_ALLOW);
        assert_int_equal(ask(&plain, calls[i], 0, 0, 0, 0), SECCOMP_RET_ALLOW);
    }
}

static void personality_knows_three_values(void **state)
{
    (void)state;
    struct mu_seccomp_rules r = {.arch = X86};
    assert_int_equal(ask(&r, 135, 0, 0, 0, 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask(&r, 135, 0xffffffff, 0, 0, 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask(&r, 135, 0x40000, 0, 0, 0), SECCOMP_RET_ALLOW);
    assert_int_equal(ask(&r, 135, 0x400000, 0, 0, 0), ERRNO(EPERM));
}

/* --- the table against the C library's numbers, and against the kernel --- */

struct known {
    const char *name;
    int x86_64, aarch64, here;
};
static const struct known table[] = {
#define MU_CALL(name, x86_64, aarch64, class_) {#name, x86_64, aarch64, -1},
#include "exec/sandbox/seccomp.def"
#undef MU_CALL
};

static int libc_number(const char *name)
{
#define N(call)                                                                                    \
    if (strcmp(name, #call) == 0) {                                                                \
        return SYS_##call;                                                                         \
    }
    N(bpf)
    N(perf_event_open) N(keyctl) N(add_key) N(request_key) N(open_by_handle_at) N(fanotify_init)
        N(kcmp) N(move_pages) N(migrate_pages) N(init_module) N(finit_module) N(delete_module)
            N(kexec_load) N(reboot) N(swapon) N(swapoff) N(acct) N(syslog) N(vhangup) N(quotactl)
                N(sethostname) N(setdomainname) N(settimeofday) N(clock_settime) N(clock_adjtime)
                    N(adjtimex) N(mount) N(umount2) N(pivot_root) N(chroot) N(setns) N(socket)
                        N(socketpair) N(ioctl) N(clone) N(unshare) N(personality) N(fchmod)
                            N(fchmodat) N(openat) N(mknodat) N(fchown) N(fchownat) N(setgroups)
                                N(setuid) N(setgid) N(setreuid) N(setregid) N(setresuid)
                                    N(setresgid) N(setfsuid) N(setfsgid) N(capset) N(userfaultfd)
#ifdef __x86_64__
                                        N(open) N(creat) N(chmod) N(chown) N(lchown) N(mknod)
                                            N(modify_ldt) N(iopl) N(ioperm) N(ustat) N(uselib)
                                                N(sysfs) N(_sysctl) N(kexec_file_load)
#endif
#undef N
                                                    return -1;
}

static void numbers_agree_with_the_c_library(void **state)
{
    (void)state;
    int compared = 0;
    for (size_t i = 0; i < MU_ARRAY_LEN(table); i++) {
        int nr = libc_number(table[i].name);
        if (nr >= 0) {
            int ours = MU_SECCOMP_HERE == MU_SECCOMP_X86_64 ? table[i].x86_64 : table[i].aarch64;
            if (nr != ours) {
                fail_msg("%s is %d, not %d", table[i].name, nr, ours);
            }
            compared++;
        }
        for (size_t j = 0; j < i; j++) {
            assert_true(table[i].x86_64 < 0 || table[i].x86_64 != table[j].x86_64);
            assert_true(table[i].aarch64 < 0 || table[i].aarch64 != table[j].aarch64);
        }
    }
    assert_true(compared > 50);
}

enum { PASSED = 99, LAST = 700 };

/* uretprobe and uprobe (335, 336 on x86_64) pass every filter by the kernel's own rule and end a
 * process that was not patched by it. */
static bool is_left_out(int nr)
{
    bool probe = MU_SECCOMP_HERE == MU_SECCOMP_X86_64 && (nr == 335 || nr == 336);
    return nr == SYS_exit_group || nr == SYS_seccomp || probe;
}

/* An older filter answers PASSED to whatever the newer one lets through: so each number is really
 * asked of the kernel and none is ever carried out. */
static void ask_kernel(const struct mu_seccomp_rules *r, short *answers)
{
    struct sock_filter all[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, ERRNO(PASSED)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog older = {MU_ARRAY_LEN(all), all};
    struct mu_seccomp_program p;
    mu_seccomp_build(r, &p);
    struct sock_fprog newer = {p.len, p.code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, 1, 0, &older)) {
        syscall(SYS_exit_group, 1);
    }
    if (syscall(SYS_seccomp, 1, 0, &newer)) {
        syscall(SYS_exit_group, 2);
    }
    for (int nr = 0; nr < LAST; nr++) {
        if (!is_left_out(nr)) {
            answers[nr] = syscall(nr, 0L, 0L, 0L, 0L, 0L, 0L) < 0 ? (short)errno : 0;
        }
    }
    syscall(SYS_exit_group, 0);
}

static void every_number_asked_of_the_kernel_answers_as_the_table_says(void **state)
{
    (void)state;
    static const struct mu_seccomp_rules cases[] = {
        {0},
        {.one_id = true},
        {.nested = true},
        {.fake_root = true, .one_id = true},
        {.fake_root = true},
        {.only_unix = true},
    };
    short *answers = mmap(NULL, LAST * sizeof *answers, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(answers != MAP_FAILED);
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        int status, refused = 0;
        pid_t pid = fork();
        if (pid == 0) {
            ask_kernel(&cases[i], answers);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        for (int nr = 0; nr < LAST; nr++) {
            if (is_left_out(nr)) {
                continue;
            }
            uint32_t want = ask(&cases[i], nr, 0, 0, 0, 0);
            short expected = want == SECCOMP_RET_ALLOW ? PASSED : (short)(want & 0xffff);
            if (answers[nr] != expected) {
                fail_msg("case %zu, call %d: %d, not %d", i, nr, answers[nr], expected);
            }
            refused += nr <= MU_SECCOMP_CEILING && expected != PASSED && expected != 0;
        }
        if (i == 0) { /* socket() and socketpair() of family 0 besides */
            assert_int_equal(refused, mu_seccomp_refused(&cases[0]) + 2);
        }
    }
    munmap(answers, LAST * sizeof *answers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_architectures_and_x32_are_killed),
        cmocka_unit_test(above_the_ceiling_everything_is_unknown),
        cmocka_unit_test(ioctls_are_compared_by_their_low_word),
        cmocka_unit_test(sockets_are_unix_inet_and_route_only),
        cmocka_unit_test(namespaces_are_refused_unless_nested),
        cmocka_unit_test(set_id_bits_are_refused_however_they_are_asked_for),
        cmocka_unit_test(the_fake_root_of_one_id_is_told_success),
        cmocka_unit_test(personality_knows_three_values),
        cmocka_unit_test(numbers_agree_with_the_c_library),
        cmocka_unit_test(every_number_asked_of_the_kernel_answers_as_the_table_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
