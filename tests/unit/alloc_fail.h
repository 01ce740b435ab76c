#ifndef TEST_ALLOC_FAIL_H
#define TEST_ALLOC_FAIL_H
/* `body` must survive any failing allocation: return an error, leak nothing (ASan watches), crash
 * never. */
void each_allocation_fails(int (*body)(void *arg), void *arg);
#endif
