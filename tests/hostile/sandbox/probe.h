#ifndef TEST_PROBE_H
#define TEST_PROBE_H

#include <errno.h>

void answer(int id, int reached, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void judge(int id, long result);
const char *name_of(int e);
void kernel_probes(void (*in_child)(int id, int (*fn)(void)));
void terminal_probes(void);

#endif
