/* SPDX-License-Identifier: BSD-2-Clause */
/* Starting the EAL without letting it change the process. */
#define ALLOW_EXPERIMENTAL_API /* rte_intr_instance_alloc and its like, from 2021 */
#include "dpdk/eal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_interrupts.h>
#include <rte_lcore.h>
#include <rte_log.h>

#define MOST_OPTIONS 64
#define OWN_OPTIONS 8
#define LINE 1024
#define PREFIX "cuse-netmap"

static enum { EAL_NONE, EAL_RUNS, EAL_ADOPTED, EAL_FAILED, EAL_STOPPED } state;

/* ---- what it says -----------------------------------------------------------------------------
 */

static struct {
    pthread_mutex_t lock;
    int reader, writer;
    char line[LINE + 1]; /* level first, under way */
    size_t length;
    char last[LINE];
} words = {.lock = PTHREAD_MUTEX_INITIALIZER, .reader = -1, .writer = -1};

/* Nobody may wait for whoever reads the pipe: a line that does not fit is lost. */
static void end_line(int level) {
    if (!words.length) return;
    if (level <= (int)RTE_LOG_WARNING)
        snprintf(words.last, sizeof(words.last), "%.*s", (int)words.length - 1, words.line + 1);
    words.line[words.length] = '\n';
    if (write(words.writer, words.line, words.length + 1) < 0) errno = 0;
    words.length = 0;
}

static __thread bool muted;

void nm_eal_mute(bool mute) { muted = mute; }

static ssize_t hear(void *cookie, const char *text, size_t size) {
    (void)cookie;
    if (muted) return (ssize_t)size;
    int level = rte_log_cur_msg_loglevel();
    if (level < (int)RTE_LOG_EMERG || level > (int)RTE_LOG_DEBUG) level = RTE_LOG_NOTICE;
    pthread_mutex_lock(&words.lock);
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\n') {
            end_line(level);
            continue;
        }
        if (!words.length) words.line[words.length++] = (char)('0' + level);
        if (words.length < LINE) words.line[words.length++] = text[i];
    }
    pthread_mutex_unlock(&words.lock);
    return (ssize_t)size;
}

/* What is printed while the options are read: what is wrong with them, and how they are used. */
static ssize_t hear_print(void *cookie, const char *text, size_t size) {
    (void)cookie;
    static const char marker[] = "unrecognized option";
    if (memmem(text, size, marker, sizeof(marker) - 1) ||
        memmem(text, size, "invalid option", 14) ||
        memmem(text, size, "requires an argument", 20)) {
        pthread_mutex_lock(&words.lock);
        snprintf(words.last, sizeof(words.last), "%.*s", (int)strcspn(text, "\n"), text);
        pthread_mutex_unlock(&words.lock);
    }
    return (ssize_t)size;
}

static FILE *stream(cookie_write_function_t *write, int buffering) {
    FILE *file = fopencookie(NULL, "w", (cookie_io_functions_t){.write = write});
    if (file) setvbuf(file, NULL, buffering, LINE);
    return file;
}

int nm_eal_log(void) { return words.reader; }

void nm_eal_listen(void) {
    pthread_mutex_lock(&words.lock);
    words.last[0] = 0;
    pthread_mutex_unlock(&words.lock);
}

void nm_eal_last_words(char *text, uint32_t size) {
    pthread_mutex_lock(&words.lock);
    snprintf(text, size, "%s", words.last);
    pthread_mutex_unlock(&words.lock);
}

int nm_eal_refuse(struct nm_refusal *why, int result, const char *format, ...) {
    int error =
        result < -1 ? -result : rte_errno; /* -1 is DPDK's "it failed" more often than EPERM */
    if (error <= 0 || error >= __ELASTERROR) error = EIO;
    char said[sizeof(why->text)], doing[sizeof(why->text)];
    nm_eal_last_words(said, sizeof(said));
    va_list args;
    va_start(args, format);
    vsnprintf(doing, sizeof(doing), format, args);
    va_end(args);
    return nm_refuse(why, error, "%s: %s%s%s", doing, rte_strerror(error), *said ? ": " : "", said);
}

/* ---- turns of the interrupt thread ------------------------------------------------------------
 */

static struct {
    pthread_mutex_t lock; /* one at a time */
    int eventfd;          /* an interrupt source of ours; -1: there is none */
    void (*function)(void *arg);
    void *arg;
} turn = {.lock = PTHREAD_MUTEX_INITIALIZER, .eventfd = -1};

bool nm_eal_is_virtual(uint16_t device) {
    struct rte_eth_dev_info info;
    return !rte_eth_dev_info_get(device, &info) && info.device &&
           !strcmp(rte_bus_name(rte_dev_bus(info.device)), "vdev");
}

static bool all_are_virtual(void) {
    uint16_t device;
    RTE_ETH_FOREACH_DEV(device) {
        if (!nm_eal_is_virtual(device)) return false;
    }
    return true;
}

static void take_turn(void *unused) {
    (void)unused;
    eventfd_t count;
    if (!eventfd_read(turn.eventfd, &count)) turn.function(turn.arg);
}

static void offer_turns(void) {
    struct rte_intr_handle *source = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bool told = source && fd >= 0 && !rte_intr_fd_set(source, fd) &&
                !rte_intr_type_set(source, RTE_INTR_HANDLE_EXT) &&
                !rte_intr_callback_register(source, take_turn, NULL);
    rte_intr_instance_free(source); /* the EAL has made a copy */
    if (told)
        turn.eventfd = fd;
    else if (fd >= 0)
        close(fd);
}

struct call {
    void (*function)(void *arg);
    void *arg;
    sem_t *done;
};

static void call(void *arg) {
    struct call *call = arg;
    call->function(call->arg);
    sem_post(call->done);
}

/* For good: the memory is about to go, and in it sources that drivers have left behind. */
static void park(void *done) {
    sem_post(done);
    for (;;)
        pause();
}

/* Until `function`, which has to post `done`, has done so. */
static void hand_over(void (*function)(void *arg), void *arg, sem_t *done) {
    pthread_mutex_lock(&turn.lock);
    turn.function = function;
    turn.arg = arg;
    eventfd_write(turn.eventfd, 1);
    while (sem_wait(done)) /* EINTR */
        ;
    pthread_mutex_unlock(&turn.lock);
}

void nm_eal_in_turn(uint16_t device, void (*function)(void *arg), void *arg) {
    if (turn.eventfd < 0 || rte_thread_is_intr() || !nm_eal_is_virtual(device)) {
        function(arg);
        return;
    }
    sem_t done;
    sem_init(&done, 0, 0);
    hand_over(call, &(struct call){.function = function, .arg = arg, .done = &done}, &done);
    sem_destroy(&done);
}

/* ---- starting ---------------------------------------------------------------------------------
 */

static void ignore(int number) { (void)number; }

/* The tap driver of DPDK is told of frames by the first realtime signal that is free, which would
 * interrupt threads that know nothing of it, and kill us by SIGIO when too many are queued. Where
 * none is free it reads its descriptors instead. A handler, unlike SIG_IGN, ends with exec. */
static void keep_signals(void) {
    struct sigaction ours = {.sa_handler = ignore, .sa_flags = SA_RESTART}, old;
    for (int number = SIGRTMIN + 1; number < SIGRTMAX; number++)
        if (!sigaction(number, NULL, &old) && old.sa_handler == SIG_DFL)
            sigaction(number, &ours, NULL);
}

/* One lcore on all CPUs we may use: "0@(0,1,3)". */
static bool describe_cpus(char *text, size_t size) {
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof(cpus), &cpus)) return false;
    size_t length = (size_t)snprintf(text, size, "--lcores=0@(");
    const char *separator = "";
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &cpus)) continue;
        int more = snprintf(text + length, size - length, "%s%d", separator, cpu);
        if (more < 0 || length + (size_t)more + 2 > size) return false;
        length += (size_t)more;
        separator = ",";
    }
    snprintf(text + length, size - length, ")");
    return true;
}

/* Whether an option is among those given, long ("--lcores", also with its value) or short ("-l").
 */
static bool has(uint32_t count, const char *const options[], const char *name) {
    size_t length = strlen(name);
    bool is_long = name[1] == '-';
    for (uint32_t i = 0; i < count; i++) {
        if (strncmp(options[i], name, length)) continue;
        if (!is_long || !options[i][length] || options[i][length] == '=') return true;
    }
    return false;
}

struct start {
    int argc, result, error;
    char *argv[MOST_OPTIONS + OWN_OPTIONS + 2];
    char cpus[4096];
};

static void add(struct start *start, const char *option) {
    start->argv[start->argc++] = (char *)option;
}

static void compose(struct start *start, uint32_t count, const char *const options[]) {
    add(start, PREFIX);
    bool cores =
        has(count, options, "-l") || has(count, options, "-c") || has(count, options, "--lcores");
    if (!cores && describe_cpus(start->cpus, sizeof(start->cpus))) add(start, start->cpus);
    if (!has(count, options, "--telemetry")) add(start, "--no-telemetry");
    /* Without files of its own where it can do that; else none that another process could find. */
    bool plain = has(count, options, "--no-huge") || has(count, options, "--legacy-mem");
    if (plain && !has(count, options, "--no-shconf")) add(start, "--no-shconf");
    if (plain && !has(count, options, "--file-prefix")) add(start, "--file-prefix=" PREFIX);
    if (!plain && !has(count, options, "--in-memory")) add(start, "--in-memory");
    for (uint32_t i = 0; i < count; i++)
        add(start, options[i]);
}

/* In a thread of its own, which becomes the main lcore: the EAL ties that to its CPUs. Its threads
 * inherit that no signal is theirs. */
static void *run(void *arg) {
    struct start *start = arg;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    FILE *out = stdout, *err = stderr, *ours = stream(hear_print, _IOFBF);
    if (ours) stdout = stderr = ours; /* glibc says that they may be set */
    rte_errno = 0;
    start->result = rte_eal_init(start->argc, start->argv);
    start->error = rte_errno;
    stdout = out;
    stderr = err;
    if (ours) fclose(ours);
    return NULL;
}

static int open_log(void) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) return -errno;
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    words.reader = ends[0];
    words.writer = ends[1];
    FILE *log = stream(hear, _IOLBF);
    return log ? rte_openlog_stream(log) : -ENOMEM;
}

int nm_eal_start(uint32_t count, const char *const options[], struct nm_refusal *why) {
    if (state == EAL_RUNS || state == EAL_ADOPTED) return 0;
    if (state != EAL_NONE)
        return nm_refuse(why, EALREADY, "DPDK does not start twice in one process");
    if (count > MOST_OPTIONS)
        return nm_refuse(why, EINVAL, "more than %u EAL options", MOST_OPTIONS);
    if (has(count, options, "-h") || has(count, options, "--help"))
        return nm_refuse(why, EINVAL, "the EAL option --help would end the program");
    int error = words.writer < 0 ? open_log() : 0;
    struct start *start = calloc(1, sizeof(*start));
    if (error || !start) {
        free(start);
        return nm_refuse(why, error ? -error : ENOMEM, "no log for DPDK");
    }
    compose(start, count, options);
    keep_signals();
    nm_eal_listen();
    pthread_t thread;
    error = -pthread_create(&thread, NULL, run, start);
    if (!error) pthread_join(thread, NULL);
    if (!error && start->result < 0) {
        rte_errno = start->error;
        error = nm_eal_refuse(why, 0, "starting DPDK");
        if (-error != EINVAL) state = EAL_FAILED; /* bad options can be mended */
    } else if (!error) {
        state = EAL_RUNS;
        offer_turns();
    }
    /* getopt and the EAL keep pointers to the options: they stay. */
    return error;
}

void nm_eal_adopt(void) {
    if (state != EAL_ADOPTED) offer_turns();
    state = EAL_ADOPTED;
}

void nm_eal_stop(void) {
    if (state == EAL_RUNS) {
        sem_t parked;
        sem_init(&parked, 0, 0);
        if (turn.eventfd >= 0 && all_are_virtual()) {
            hand_over(park, &parked, &parked);
            turn.eventfd = -1;
        }
        rte_eal_cleanup();
        rmdir("/var/run/dpdk/" PREFIX); /* which --no-shconf leaves, empty */
    }
    state = EAL_STOPPED;
    if (words.writer >= 0) close(words.writer);
    words.writer = -1;
}

/* ---- threads ----------------------------------------------------------------------------------
 */

static pthread_key_t leaving;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void leave(void *registered) {
    (void)registered;
    if (state == EAL_RUNS || state == EAL_ADOPTED) rte_thread_unregister();
}

static void make_key(void) { pthread_key_create(&leaving, leave); }

void nm_eal_enter(void) {
    static __thread bool known;
    if (known) return;
    known = true;
    if (rte_lcore_id() != LCORE_ID_ANY || rte_thread_register()) return; /* slower without */
    pthread_once(&once, make_key);
    pthread_setspecific(leaving, &once);
}
