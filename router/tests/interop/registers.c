/* The registers of the guest's processes, whole.
 *
 * user-mode-linux reads and writes the extended registers of its processes with a buffer for AVX-512 and no more. A host whose
 * processors have more (AMX) reads them out that far, but takes them back only whole: no guest boots there. This library stands in
 * front of the C library's ptrace and puts what the kernel wants to write over what is there. Elsewhere it changes nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

long ptrace(enum __ptrace_request request, ...)
{
	static long (*real)(enum __ptrace_request, ...);
	static char all[1 << 16];
	va_list arguments;
	va_start(arguments, request);
	pid_t pid = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *), *data = va_arg(arguments, void *);
	va_end(arguments);
	if (!real)
		real = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
	if (request != PTRACE_SETREGSET || address != (void *)NT_X86_XSTATE)
		return real(request, pid, address, data);
	struct iovec whole = { all, sizeof all };
	const struct iovec *part = data;
	long failed = real(PTRACE_GETREGSET, pid, address, &whole);
	if (failed)
		return failed;
	memcpy(all, part->iov_base, part->iov_len < whole.iov_len ? part->iov_len : whole.iov_len);
	return real(request, pid, address, &whole);
}
