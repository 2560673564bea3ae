/* Loaded into a process first, answers its `cpuid` instructions less newer ones: see older_processor.py.

   Linux, x86-64. Once `cpuid` is forbidden it raises SIGSEGV; the handler runs it, clears bits of the answer and goes on
   behind it. Other handlers of SIGSEGV (Python's faulthandler) are kept and called for all else. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

typedef int (*Sigaction)(int, const struct sigaction *, struct sigaction *);

static struct sigaction others; /* the handler that the program wants */
static int without_avx512;

static void allow(long allowed) { syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void hide(uint32_t leaf, uint32_t part, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d) {
  if (leaf == 7 && part == 0) {
    /* VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; then VP2INTERSECT, AMX-BF16, AVX512-FP16, AMX-TILE, AMX-INT8 */
    *c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
    *d &= ~(BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
    if (without_avx512) { /* F, DQ, IFMA, PF, ER, CD, BW, VL; then 4VNNIW, 4FMAPS */
      *b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
      *d &= ~(BIT(2) | BIT(3));
    }
  } else if (leaf == 7 && part == 1) {
    *a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23)); /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA */
    *d &= ~(BIT(4) | BIT(5) | BIT(10) | BIT(19)); /* AVX-VNNI-INT8, AVX-NE-CONVERT, AVX-VNNI-INT16, AVX10 */
  }
}

static void answer(int number, siginfo_t *info, void *context) {
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint8_t *at = (const uint8_t *)r[REG_RIP];
  if (info->si_code == SI_KERNEL && at[0] == 0x0f && at[1] == 0xa2) {
    uint32_t leaf = (uint32_t)r[REG_RAX], part = (uint32_t)r[REG_RCX], a = leaf, b, c = part, d;
    allow(1);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    allow(0);
    hide(leaf, part, &a, &b, &c, &d);
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
    r[REG_RIP] += 2;
  } else if (others.sa_flags & SA_SIGINFO) {
    others.sa_sigaction(number, info, context);
  } else if (others.sa_handler != SIG_DFL && others.sa_handler != SIG_IGN) {
    others.sa_handler(number);
  } else { /* dies of it when the instruction is run again */
    signal(number, SIG_DFL);
  }
}

static Sigaction real_sigaction(void) { return (Sigaction)dlsym(RTLD_NEXT, "sigaction"); }

int sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
  if (number != SIGSEGV) return real_sigaction()(number, wanted, before);
  if (before) *before = others;
  if (wanted) others = *wanted;
  return 0;
}

__attribute__((constructor)) static void begin(void) {
  const char *missing = getenv("OLDER_PROCESSOR");
  struct sigaction ours;
  without_avx512 = missing && !strcmp(missing, "avx512");
  memset(&ours, 0, sizeof ours);
  ours.sa_sigaction = answer;
  ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  real_sigaction()(SIGSEGV, &ours, &others);
  allow(0);
}
