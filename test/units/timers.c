/* The PC's timers: PIT and port 0x61 (Intel 8254 datasheet, 231164), RTC (Motorola MC146818A), HPET (IA-PC HPET 1.0a), the local APIC's
   (Intel SDM volume 3, 11.5.4). Lines that begin with VALUE hold what has to be the same in every emulator. */
#include "units.h"

static void value(const char *name, u64 v) { put("VALUE %s: %x\n", name, v); }
#define HPET(at) (*(volatile u32 *)(0xfed00000ul + (at)))
static void redirect(int n, u32 low) {
  volatile u32 *io = (u32 *)0xfec00000;
  io[0] = 0x11 + 2 * n; io[4] = 0; io[0] = 0x10 + 2 * n; io[4] = low;
}
/* Interrupts by vector, and the time of the HPET at the last one. */
static volatile u32 taken[256], when[256];
static void on_irq(struct frame *f) { taken[f->vector]++; when[f->vector] = HPET(0xf0); apic_write(0xb0, 0); }
enum { PIT = 0x50, RTC = 0x51, TIMER = 0x52, PIN = 0x53 };
static volatile int flag_c;
static u8 cmos(int at) { outb(0x70, at); return inb(0x71); }
static void set_cmos(int at, u8 v) { outb(0x70, at); outb(0x71, v); }
static void on_rtc(struct frame *f) { taken[f->vector]++; when[f->vector] = HPET(0xf0); flag_c = cmos(12); apic_write(0xb0, 0); }

/* us microseconds by the HPET, with interrupts as they are. */
static void sleep_us(u32 us) { u32 from = HPET(0xf0); while (HPET(0xf0) - from < 100 * us) pause_(); }
static int wait_irq(int v, u32 n, u32 us) { u32 from = HPET(0xf0); while (taken[v] < n && HPET(0xf0) - from < 100 * us) pause_(); return taken[v] >= n; }
/* A host that has other things to do makes things come late, not early: what has to come is waited for this long, most counts are held
   against the time that has passed, and what asks for one moment is tried again. */
#define PATIENTLY 10000000
#define RETRY(attempt, condition) do { int seen_ = 0; for (int n_ = 0; n_ < 20 && !seen_; n_++) { attempt; seen_ = (condition); } } while (0)
#define OFTEN(attempt, condition, ...) do { int good_ = 0; RETRY(attempt, good_ = (condition)); report(good_, __VA_ARGS__); } while (0)
/* Waits for `least` interrupts and until `us` microseconds after `from`; no more may have come than one at first and one in `period` counts of the HPET. */
static u32 got, most;
static int irqs(int v, u32 least, u32 from, u32 us, u32 period) {
  wait_irq(v, least, PATIENTLY);
  while (HPET(0xf0) - from < 100 * us) pause_();
  got = taken[v];
  most = (HPET(0xf0) - from) / period + 1;
  return got >= least && got <= most;
}
/* `got` and `most` are printed as they are afterwards. */
#define REPORT_IRQS(condition, ...) do { int good_ = condition; report(good_, __VA_ARGS__); } while (0)
static int near(u32 v, u32 least, u32 most) { return v >= least && v <= most; }

/* Channel n: control word, then a count as the access of the word has it. */
static void control(int n, u8 v) { outb(0x43, n << 6 | v); }
static void load(int n, u16 count) { outb(0x40 + n, count); outb(0x40 + n, count >> 8); }
static u16 read_both(int n) { u8 low = inb(0x40 + n); return low | inb(0x40 + n) << 8; }
static u16 latch(int n) { control(n, 0); return read_both(n); }
static u8 status(int n) { outb(0x43, 0xe0 | 2 << n); return inb(0x40 + n); }
static u8 out2(void) { return inb(0x61) >> 5 & 1; }
static void gate(int on) { outb(0x61, on); }
#define OUT 0x80
#define NULL_COUNT 0x40

static void pit(void) {
  gate(1);
  /* What was written shows in the status. */
  static const u8 words[] = { 0x30, 0x12, 0x24, 0x36, 0x18, 0x2a, 0x31, 0x35 };
  for (int n = 0; n <= 2; n += 2)
    for (int i = 0; i < 8; i++) {
      control(n, words[i]);
      u8 before = status(n);
      if ((words[i] & 0x30) != 0x20) outb(0x40 + n, 0x99);
      if ((words[i] & 0x30) != 0x10) outb(0x40 + n, 0x99);
      u8 s = status(n);
      put("VALUE channel %d, control word %x, status: %x\n", n, (u64)words[i], (u64)(s & 0x3f));
      report((before & NULL_COUNT) != 0, "channel %d, word %x: null count before a count is written (%x)", n, (u64)words[i], (u64)before);
      int triggered = (words[i] >> 1 & 7) == 1 || (words[i] >> 1 & 7) == 5;
      report(((s & NULL_COUNT) != 0) == triggered, "channel %d, word %x: a count that is loaded is no null count (%x)", n, (u64)words[i], (u64)s);
    }
  control(2, 0x3c); load(2, 1000); 
  report((status(2) >> 1 & 7) == 2, "mode 6 is mode 2 (%x)", (u64)status(2));
  control(2, 0x3e); load(2, 1000);
  report((status(2) >> 1 & 7) == 3, "mode 7 is mode 3 (%x)", (u64)status(2));
  control(2, 0x3c); load(2, 1000);

  /* Latches: the first one holds until it is read. */
  u16 a, b;
  OFTEN(control(2, 0x34); load(2, 0xffff); control(2, 0); sleep_us(2000); control(2, 0); a = read_both(2); b = latch(2), a > 0xff00 && b < a - 2000, "a latched count holds until it is read, a second latch meanwhile does nothing (%x, %x)", (u64)a, (u64)b);
  u8 s, low, high;
  OFTEN(control(2, 0x34); load(2, 0xffff); outb(0x43, 0xc8); s = inb(0x42); low = inb(0x42); high = inb(0x42), (s & 0x3f) == 0x34 && near(high << 8 | low, 0xf000, 0xffff), "read-back of both: status first, then the count (%x, %x)", (u64)s, (u64)(high << 8 | low));
  control(2, 0x34); load(2, 0xffff);
  outb(0x43, 0xe8); outb(0x43, 0xe8);
  value("two read-backs of the status", inb(0x42) & 0x3f);
  OFTEN(control(2, 0x34); load(2, 0xffff); outb(0x43, 0xe8); inb(0x42), near(latch(2), 0xf000, 0xffff), "a latched status is read once");
  control(2, 0x14); outb(0x42, 200);
  sleep_us(10);
  report(near(inb(0x42), 1, 200) && near(inb(0x42), 1, 200), "access to the low byte alone");
  OFTEN(control(2, 0x24); outb(0x42, 0x80); sleep_us(10), near(inb(0x42), 0x60, 0x80), "access to the high byte alone");
  OFTEN(control(2, 0x34); load(2, 0x8000); inb(0x42); outb(0x43, 0xd8), near(read_both(2), 0x6000, 0x8000), "a latched count between its bytes is whole");
  /* The chip has one flip-flop for reads and another for writes. */
  u8 l, h;
  OFTEN(control(2, 0x34); load(2, 0x8000); l = inb(0x42); outb(0x42, 0x00); h = inb(0x42); outb(0x42, 0x90); sleep_us(10), near(h, 0x60, 0x80) && near(latch(2), 0x8000, 0x9000), "reads and writes of two bytes may be mixed (%x)", (u64)(h << 8 | l));

  /* Mode 0: low until the count has run out, then high; counting goes on. */
  gate(1);
  control(2, 0x30);
  report(out2() == 0, "mode 0: low after the control word");
  OFTEN(control(2, 0x30); load(2, 12000), out2() == 0 && (status(2) & OUT) == 0, "mode 0: low while it counts");
  sleep_us(12000);
  report(out2() == 1 && (status(2) & OUT) == OUT, "mode 0: high at its end");
  OFTEN(load(2, 1000); sleep_us(2000), near(latch(2), 0x8000, 0xffff), "mode 0: the count goes on from 0xffff");
  OFTEN(load(2, 0xffff), out2() == 0, "mode 0: a new count takes the output low again");
  outb(0x42, 0x10);
  a = read_both(2);
  sleep_us(3000);
  b = latch(2);
  report(b == a || b == (a & 0xff00 | 0x10), "mode 0: the first byte of a new count stops the old one (%x, %x)", (u64)a, (u64)b);
  outb(0x42, 0x10);
  /* The gate stops it. */
  control(2, 0x30); load(2, 0xffff);
  gate(0); a = latch(2); sleep_us(3000); b = latch(2);
  report(a == b, "mode 0: a low gate stops the count (%x, %x)", (u64)a, (u64)b);
  OFTEN(control(2, 0x30); gate(0); load(2, 0xffff); b = latch(2); gate(1); sleep_us(3000), near(latch(2), b - 0x4000, b - 3000), "mode 0: and a high one lets it go on");

  /* Mode 1: a rising gate begins a pulse. */
  gate(0);
  control(2, 0x32); load(2, 60000);
  report(out2() == 1, "mode 1: high before the trigger");
  OFTEN(gate(0); gate(1), out2() == 0, "mode 1: low from the trigger on");
  OFTEN(gate(0); gate(1); sleep_us(25000); gate(0); gate(1); sleep_us(30000), out2() == 0 && near(latch(2), 1, 60000 - 30000), "mode 1: a second trigger begins anew");
  sleep_us(60000);
  report(out2() == 1, "mode 1: high at its end");
  OFTEN(gate(0); control(2, 0x32); load(2, 1000); gate(1); sleep_us(3000); load(2, 500), near(latch(2), 0x8000, 0xffff), "mode 1: a count without a trigger is not loaded");

  /* Mode 2: high, low for one pulse in each period. */
  gate(1);
  control(2, 0x34); load(2, 1000);
  int highs = 0;
  for (int i = 0; i < 200; i++) highs += out2();
  report(highs >= 190, "mode 2: high but for one pulse (%d of 200)", highs);
  int most = 0, least = 0x10000;
  for (int i = 0; i < 2000; i++) { int v = latch(2); if (v > most) most = v; if (v < least) least = v; }
  report(near(most, 900, 1000) && near(least, 1, 100), "mode 2: counts from the count to 1 (%d to %d)", most, least);
  gate(0);
  report(out2() == 1, "mode 2: a low gate takes the output high");
  a = latch(2); sleep_us(300); b = latch(2);
  report(a == b, "mode 2: and stops the count (%x, %x)", (u64)a, (u64)b);
  OFTEN(control(2, 0x34); load(2, 60000); gate(1); a = latch(2); gate(0); sleep_us(3000); gate(1), near(a, 55000, 60000) && near(latch(2), 57000, 60000), "mode 2: a rising gate begins anew");

  /* Mode 3: a square wave, counting by two. */
  control(2, 0x36); load(2, 1001);
  highs = 0; int odd = 0;
  for (int i = 0; i < 4000; i++) { highs += out2(); odd += latch(2) & 1; }
  report(near(highs, 1000, 3000), "mode 3: half of the time high (%d of 4000)", highs);
  report(odd < 4000, "mode 3: counts by two");
  gate(0);
  report(out2() == 1, "mode 3: a low gate takes the output high");
  gate(1);
  OFTEN(control(2, 0x36); load(2, 60000); sleep_us(10000), near(latch(2), 10000, 60000 - 2 * 11000), "mode 3: two elements in each pulse");

  /* Modes 4 and 5: a strobe of one pulse. */
  OFTEN(control(2, 0x38); load(2, 60000), out2() == 1 && (status(2) & OUT), "mode 4: high while it counts");
  OFTEN(control(2, 0x38); load(2, 1000); sleep_us(3000), out2() == 1 && near(latch(2), 0x8000, 0xffff), "mode 4: high after its strobe, counting on");
  control(2, 0x38); load(2, 60000);
  gate(0); a = latch(2); sleep_us(3000); b = latch(2);
  report(a == b, "mode 4: a low gate stops the count (%x, %x)", (u64)a, (u64)b);
  OFTEN(gate(0); control(2, 0x3a); load(2, 60000); gate(1), out2() == 1 && near(latch(2), 50000, 60000), "mode 5: triggered by the gate");
  OFTEN(gate(0); gate(1); gate(0); sleep_us(3000), near(latch(2), 20000, 60000 - 3000), "mode 5: a low gate does not stop it");

  /* BCD. */
  gate(1);
  control(2, 0x35); load(2, 0x9000);
  int good = 1;
  for (int i = 0; i < 3000; i++) { u16 v = latch(2); for (int k = 0; k < 16; k += 4) if ((v >> k & 15) > 9) good = 0; if (v > 0x9000) good = 0; }
  report(good, "BCD: each digit is one");
  OFTEN(control(2, 0x31); load(2, 0x0500); sleep_us(1000); a = latch(2), near(a, 0x5000, 0x9999), "BCD: 0000 is followed by 9999 (%x)", (u64)a);
  /* Control words and status are not read from port 0x43. */
  gate(3); value("port 0x61, gate and speaker", inb(0x61) & 3);
  gate(0); value("port 0x61, neither", inb(0x61) & 3);
  u8 first = inb(0x61) & 0x10; int changed = 0;
  for (int i = 0; i < 10000 && !changed; i++) changed = (inb(0x61) & 0x10) != first;
  report(changed, "the refresh bit toggles");

  /* Channel 0 interrupts. */
  handlers[PIT] = on_irq;
  redirect(2, PIT);
  control(0, 0x30); sti();
  taken[PIT] = 0;
  u32 from = HPET(0xf0);
  load(0, 6000);
  int came = wait_irq(PIT, 1, PATIENTLY);
  report(came && when[PIT] - from >= 502000, "mode 0 interrupts once its count is over (%d)", when[PIT] - from);
  sleep_us(20000);
  report(taken[PIT] == 1, "and once only (%d)", taken[PIT]);
  value("interrupts of mode 0", taken[PIT]);
  static const struct { u8 word; u16 count; int interrupts; } kinds[] = { { 0x34, 6000, 40 }, { 0x36, 6000, 40 }, { 0x34, 3000, 80 }, { 0x38, 6000, 1 } };
  for (int i = 0; i < 4; i++) {
    control(0, kinds[i].word);
    from = HPET(0xf0); taken[PIT] = 0;
    load(0, kinds[i].count);
    int good = irqs(PIT, (kinds[i].interrupts + 9) / 10, from, 201140, kinds[i].count * 83);
    report(good && (kinds[i].interrupts > 1 || got == 1), "control word %x with %d: %d interrupts of %d", (u64)kinds[i].word, kinds[i].count, got, most);
  }
  /* A new count in the middle of a period; one that ends it. */
  OFTEN(control(0, 0x34); load(0, 60000); sleep_us(1000); taken[PIT] = 0; load(0, 6000), wait_irq(PIT, 4, 120000), "mode 2: a new count while the old one runs");
  control(0, 0x30); sleep_us(20000); taken[PIT] = 0; sleep_us(20000);
  report(taken[PIT] == 0, "a control word ends it (%d)", taken[PIT]);
  cli();
  redirect(2, 0x10000);
}

/* Seconds of the day in the present format. */
static int digits(u8 v) { return cmos(11) & 4 ? v : 10 * (v >> 4) + (v & 15); }
static void until_update(void) { u32 from = HPET(0xf0); u8 s = cmos(0); while (cmos(0) == s && HPET(0xf0) - from < 250000000) pause_(); }
/* A value that is what it should be where the attempt takes less than its second. */
#define WITHIN(name, expected, attempt, v) do { u64 v_; RETRY(attempt, (v_ = (v)) == (expected)); value(name, v_); } while (0)
static void set_time(u8 b, u8 h, u8 m, u8 s) { set_cmos(11, b | 0x80); set_cmos(4, h); set_cmos(2, m); set_cmos(0, s); set_cmos(11, b & 0x7f); }
static void set_date(u8 century, u8 year, u8 month, u8 day) { set_cmos(0x32, century); set_cmos(9, year); set_cmos(8, month); set_cmos(7, day); }
static u64 time_now(void) { return (u64)cmos(0x32) << 48 | (u64)cmos(9) << 40 | (u64)cmos(8) << 32 | (u64)cmos(7) << 24 | cmos(4) << 16 | cmos(2) << 8 | cmos(0); }

static void rtc(void) {
  handlers[RTC] = on_rtc;
  redirect(8, RTC);
  set_cmos(10, 0x26); set_cmos(11, 2); cmos(12);
  value("register D", cmos(13));
  value("register B", cmos(11));
  set_cmos(12, 0xff); set_cmos(13, 0);
  value("registers C and D are read only", cmos(12) & 0xf | cmos(13) << 8);
  set_cmos(10, 0xa6); report((cmos(10) & 0x7f) == 0x26, "UIP is read only");

  /* Formats of the same time. */
  u32 from;
  until_update();
  WITHIN("BCD, 24 hours", 0x20240228235958, set_cmos(11, 0x82); set_date(0x20, 0x24, 0x02, 0x28); set_time(2, 0x23, 0x59, 0x58), time_now());
  WITHIN("the day after 28 February 2024", 0x20240229000000, set_date(0x20, 0x24, 0x02, 0x28); set_time(2, 0x23, 0x59, 0x58); from = HPET(0xf0); until_update(); until_update(); sleep_us(50000), time_now());
  value("its weekday", cmos(6));
  OFTEN(from = HPET(0xf0); until_update(); until_update(), near(HPET(0xf0) - from, 100000000, 230000000), "two updates in two seconds (%d)", HPET(0xf0) - from);
  WITHIN("binary", 0x13630c1f173b3b, set_cmos(11, 0x86); set_date(19, 99, 12, 31); set_time(6, 23, 59, 59), time_now());
  WITHIN("binary, the new century", 0x14000101000000, set_cmos(11, 0x86); set_date(19, 99, 12, 31); set_time(6, 23, 59, 59); until_update(), time_now());
  WITHIN("12 hours, 11 PM", 0x20230228915959, set_cmos(11, 0x80); set_date(0x20, 0x23, 0x02, 0x28); set_time(0, 0x91, 0x59, 0x59), time_now());
  WITHIN("12 AM, 1 March", 0x20230301120000, set_cmos(11, 0x80); set_date(0x20, 0x23, 0x02, 0x28); set_time(0, 0x91, 0x59, 0x59); until_update(), time_now());
  set_time(0, 0x12, 0x00, 0x05); value("12 AM is kept", cmos(4));
  set_time(0, 0x92, 0x00, 0x05); value("12 PM is kept", cmos(4));
  set_cmos(11, 2);
  value("which is 12 hours", cmos(11) & 2 ? 0x12 : 0);
  /* Registers keep what is written while SET is on, whatever their order makes of the date meanwhile. */
  set_cmos(11, 0x82); set_date(0x20, 0x23, 0x01, 0x31); set_cmos(11, 2);
  set_cmos(11, 0x82); set_date(0x20, 0x23, 0x02, 0x15);
  value("SET, month before day", time_now() >> 24);
  set_cmos(11, 2); 
  value("the same afterwards", time_now() >> 24);
  set_cmos(11, 0x82); set_cmos(6, 7); value("SET, the weekday as written", cmos(6)); set_cmos(11, 2);
  set_time(2, 0x10, 0x20, 0x30);
  set_cmos(11, 0x82); u8 s = cmos(0); sleep_us(1200000);
  value("SET holds the time", cmos(0) - s);
  value("and UIP", cmos(10) & 0x80);
  set_cmos(11, 2);
  OFTEN(set_cmos(11, 0x82); s = cmos(0); sleep_us(1200000); set_cmos(11, 2), near(digits(cmos(0)) - digits(s), 0, 1), "the time goes on where it stood");
  set_cmos(11, 0x12); set_cmos(11, 0x92);
  value("SET clears UIE", cmos(11));
  set_cmos(11, 2);

  /* UIP: from 244 us before an update until it is over. */
  u32 last, begin, end; int changed;
  OFTEN(
    until_update(); last = HPET(0xf0);
    do s = cmos(0); while (!(cmos(10) & 0x80) && HPET(0xf0) - last < 500000000);
    begin = HPET(0xf0);
    while (cmos(10) & 0x80) pause_();
    end = HPET(0xf0); changed = cmos(0) != s,
    begin - last > 90000000 && end - begin < 2000000 && changed, "UIP once a second (%d), for a short time (%d us), and then another time", (begin - last) / 100000, (end - begin) / 100);

  /* SET and the divider: the seconds keep their phase under SET; the first update is half a second after the divider's reset. */
  OFTEN(until_update(); last = HPET(0xf0); set_cmos(11, 0x82); sleep_us(400000); set_cmos(11, 2); until_update(), near(HPET(0xf0) - last, 95000000, 130000000), "SET leaves the phase of the seconds (%d ms)", (HPET(0xf0) - last) / 100000);
  set_cmos(10, 0x76); s = cmos(0); sleep_us(1100000);
  value("a divider in reset holds the time", cmos(0) - s);
  OFTEN(set_cmos(10, 0x76); set_cmos(10, 0x26); last = HPET(0xf0); until_update(), near(HPET(0xf0) - last, 45000000, 80000000), "first update half a second after the divider's reset (%d ms)", (HPET(0xf0) - last) / 100000);

  /* Flags of register C without interrupts. */
  cmos(12);
  until_update(); sleep_us(50000);
  value("update-ended flag, not enabled", cmos(12) & 0xb0);
  WITHIN("reading clears it", 0, until_update(); sleep_us(50000); cmos(12), cmos(12) & 0xb0);
  until_update(); sleep_us(50000);
  set_cmos(11, 2 | 0x10);
  value("enabled later: a flag that is set interrupts", cmos(12) & 0xb0);
  set_cmos(11, 2);
  sleep_us(20000);
  report(cmos(12) & 0x40, "PF without PIE");

  /* Periodic interrupts at every rate. */
  sti();
  static const u8 rates[] = { 1, 2, 3, 6, 9, 13, 15 };
  for (int i = 0; i < 7; i++) {
    int rate = rates[i];
    int hz = 65536 >> (rate < 3 ? rate + 7 : rate);
    int fast = hz > 1024;
    u32 us = fast ? 100000 : hz < 16 ? 1100000 : 260000;
    int expected = (long)hz * us / 1000000;
    set_cmos(10, 0x20 | rate); set_cmos(11, 2 | 0x40); cmos(12);
    from = HPET(0xf0); taken[RTC] = 0;
    int good = irqs(RTC, fast ? 1 : (expected + 9) / 10, from, us, 100000000 / hz);
    set_cmos(11, 2);
    cmos(12);
    report(good, "rate %d: %d interrupts of %d", rate, got, most);
  }
  set_cmos(10, 0x20); set_cmos(11, 2 | 0x40); cmos(12); taken[RTC] = 0; sleep_us(100000);
  value("rate 0", taken[RTC]);
  set_cmos(10, 0x26);
  wait_irq(RTC, 1, PATIENTLY);
  value("register C of a periodic interrupt", flag_c & 0xef);
  set_cmos(11, 2); cmos(12);

  /* Without a read of register C the line stays up, and no other edge comes. */
  handlers[RTC] = on_irq;
  taken[RTC] = 0;
  set_cmos(11, 2 | 0x40);
  wait_irq(RTC, 1, PATIENTLY);
  sleep_us(50000);
  report(taken[RTC] == 1, "one interrupt while register C is not read (%d)", taken[RTC]);
  set_cmos(11, 2); cmos(12);
  handlers[RTC] = on_rtc;

  /* Update-ended and alarm. */
  OFTEN(
    until_update(); last = HPET(0xf0); sleep_us(50000);
    taken[RTC] = 0; flag_c = 0;
    cmos(12); set_cmos(11, 2 | 0x10);
    wait_irq(RTC, 2, 2500000),
    taken[RTC] == 2 && near(when[RTC] - last, 150000000, 230000000), "update-ended once a second (%d)", (when[RTC] - last) / 100000);
  value("register C of an update-ended interrupt", flag_c & 0xb0);
  static const struct { const char *name; u8 b, h, m, s, at_h, at_m, at_s; } alarms[] = {
    { "24 hours", 2, 0x13, 0x59, 0x59, 0x14, 0x00, 0x00 }, { "12 hours, BCD", 0, 0x11, 0x59, 0x59, 0x92, 0x00, 0x00 },
    { "binary", 6, 13, 59, 59, 14, 0, 0 }, { "any hour and minute", 2, 0x05, 0x06, 0x07, 0xff, 0xc0, 0x08 },
    { "any second", 2, 0x05, 0x06, 0x59, 0x05, 0x07, 0xff }, { "every second", 2, 0x05, 0x06, 0x07, 0xc0, 0xff, 0xff } };
  for (int i = 0; i < 6; i++) {
    int came;
    OFTEN(
      set_time(alarms[i].b, alarms[i].h, alarms[i].m, alarms[i].s);
      set_cmos(5, alarms[i].at_h); set_cmos(3, alarms[i].at_m); set_cmos(1, alarms[i].at_s);
      cmos(12);
      taken[RTC] = 0; flag_c = 0;
      set_cmos(11, alarms[i].b | 0x20);
      came = wait_irq(RTC, 1, 1500000),
      came && (flag_c & 0xb0) == 0xb0, "alarm, %s (%d, %x)", alarms[i].name, came, (u64)(flag_c & 0xb0));
    set_cmos(11, alarms[i].b);
  }
  set_time(2, 0x05, 0x06, 0x07);
  set_cmos(5, 0x05); set_cmos(3, 0x06); set_cmos(1, 0x30);
  taken[RTC] = 0; set_cmos(11, 0x22); sleep_us(1200000); set_cmos(11, 2);
  value("an alarm that is not due", taken[RTC]);
  value("its flag", cmos(12) & 0x20);
  cli();
  redirect(8, 0x10000);
}

static void stop_hpet(void) { HPET(0x10) = 0; for (int n = 0; n < 3; n++) { HPET(0x100 + 32 * n) = 0; } }
static void hpet(void) {
  stop_hpet();
  value("HPET capabilities", HPET(0));
  value("HPET period", HPET(4));
  for (int n = 0; n < 3; n++) { value("HPET timer", HPET(0x100 + 32 * n)); value("HPET routes", HPET(0x104 + 32 * n)); }
  value("HPET, behind the timers", HPET(0x160));
  HPET(0xf0) = 0x12345678; HPET(0xf4) = 0x9abc;
  value("main counter, halted", HPET(0xf0)); value("and its upper half", HPET(0xf4));
  sleep_us(0);
  HPET(0xf0) = 0xffffff00; HPET(0xf4) = 0;
  HPET(0x10) = 1;
  u64 end = rdtsc() + 20000000000ul;
  while (HPET(0xf4) == 0 && rdtsc() < end) pause_();
  value("the lower half carries into the upper one", HPET(0xf4));
  HPET(0x10) = 0;
  u32 a = HPET(0xf0); for (int i = 0; i < 1000; i++) pause_();
  report(HPET(0xf0) == a && a != 0, "it stands while it is not enabled");
  HPET(0x10) = 0xfffffffc; value("reserved bits of the configuration", HPET(0x10));
  HPET(0x100) = 0xffffffff; value("what timer 0 takes", HPET(0x100) & ~0x4000u); HPET(0x100) = 0;
  HPET(0x104) = 0; report(HPET(0x104) != 0, "the routes are read only");

  handlers[TIMER] = handlers[PIN] = handlers[PIT] = handlers[RTC] = on_irq;
  redirect(2, PIT); redirect(8, RTC); redirect(20, PIN); redirect(21, 0x8000 | TIMER);
  sti();
  /* One shot. */
  HPET(0xf0) = 0; HPET(0xf4) = 0;
  u32 due = 500000;
  HPET(0x14c) = 0; HPET(0x148) = due;
  taken[PIN] = 0; HPET(0x140) = 20 << 9 | 4;
  HPET(0x10) = 1;
  int came = wait_irq(PIN, 1, PATIENTLY);
  report(came && (int)(when[PIN] - due) >= 0, "one shot (%d late)", (when[PIN] - due) / 100);
  sleep_us(20000);
  value("one shot, interrupts", taken[PIN]);
  value("its comparator is kept", HPET(0x148) == due);
  value("its status, by edges", HPET(0x20));
  taken[PIN] = 0; HPET(0x148) = HPET(0xf0) - 1000; sleep_us(20000);
  report(taken[PIN] == 0, "64 bits: a comparator that has passed does not match (%d)", taken[PIN]);
  /* 32 bits: on a match and when the counter wraps. */
  WITHIN("32 bits: the wrap and the match", 2,
    HPET(0x10) = 0; HPET(0xf0) = 0xff800000; HPET(0xf4) = 7;
    HPET(0x140) = 20 << 9 | 4 | 0x100; HPET(0x148) = 0x800000; taken[PIN] = 0;
    HPET(0x10) = 1;
    wait_irq(PIN, 2, 1000000), taken[PIN]);
  value("32 bits: upper half of the comparator", HPET(0x14c));
  /* Periodic. */
  HPET(0x10) = 0; HPET(0xf0) = 0; HPET(0xf4) = 0;
  HPET(0x140) = 0;
  HPET(0x100) = 20 << 9 | 4 | 8 | 0x40;
  HPET(0x108) = 1000000; HPET(0x108) = 500000; taken[PIN] = 0;
  value("the value-set bit is used up", HPET(0x100) >> 6 & 1);
  HPET(0x10) = 1;
  wait_irq(PIN, 1, PATIENTLY);
  report(when[PIN] >= 1000000, "periodic: the first time (%d)", when[PIN]);
  /* The first one is at 2 periods. */
  REPORT_IRQS((irqs(PIN, 10, 1000000, 190000, 500000)), "periodic: %d interrupts of %d", got, most);
  /* The comparator goes on in the match, whenever the interrupt comes: with none of them taken, and where the timer has none. */
  static const char *const ways[] = { "", " with interrupts held back", " without interrupts" };
  for (int way = 0; way < 3; way++) {
    if (way == 1) cli();
    if (way == 2) HPET(0x100) = 20 << 9 | 8;
    int good = 1;
    u32 before, after;
    for (int i = 0; i < 2000 && good; i++) {
      before = HPET(0xf0); a = HPET(0x108); after = HPET(0xf0);
      good = a % 500000 == 0 && a > before && a - 500000 <= after;
    }
    report(good, "periodic%s: the comparator is the next time (%d between %d and %d)", ways[way], a, before, after);
  }
  HPET(0x100) = 20 << 9 | 4 | 8;
  sti();
  HPET(0x10) = 0;
  /* A main counter that is written while it stands takes its timers along. */
  HPET(0x100) = 0; HPET(0x140) = 20 << 9 | 4; HPET(0x148) = 0x10000000; HPET(0x14c) = 0; taken[PIN] = 0;
  HPET(0xf0) = 0x10000000 - 500000; HPET(0xf4) = 0;
  HPET(0x10) = 1;
  report(wait_irq(PIN, 1, PATIENTLY) && when[PIN] >= 0x10000000, "after the main counter was set");
  HPET(0x10) = 0; HPET(0x140) = 0;
  /* Level-triggered: until the status is cleared. */
  HPET(0xf0) = 0; HPET(0xf4) = 0;
  HPET(0x120) = 21 << 9 | 4 | 2; HPET(0x128) = 100000; HPET(0x12c) = 0;
  redirect(21, 0x18000 | TIMER);
  HPET(0x10) = 1;
  while (HPET(0xf0) < 100000) pause_();
  report(HPET(0x20) == 2, "level-triggered: the status is set in the match");
  for (u32 from = HPET(0xf0); HPET(0x20) == 0 && HPET(0xf0) - from < 100 * PATIENTLY;) pause_();
  value("level-triggered, status", HPET(0x20));
  HPET(0x20) = 0; value("a 0 leaves it", HPET(0x20));
  HPET(0x20) = 2; value("a 1 clears it", HPET(0x20));
  HPET(0x120) = 0; HPET(0x10) = 0;
  /* Legacy replacement: timers 0 and 1 in place of PIT and RTC. */
  control(0, 0x34); load(0, 6000);
  sleep_us(0);
  HPET(0xf0) = 0; HPET(0xf4) = 0;
  HPET(0x100) = 4 | 8 | 0x40; HPET(0x108) = 2000000; HPET(0x108) = 2000000;
  HPET(0x120) = 4; HPET(0x128) = 3000000; HPET(0x12c) = 0;
  taken[PIT] = taken[RTC] = 0;
  HPET(0x10) = 3;
  REPORT_IRQS((irqs(PIT, 2, 2000000, 80000, 2000000)), "legacy replacement: interrupt 0 is timer 0's (%d of %d)", got, most);
  wait_irq(RTC, 1, PATIENTLY);
  value("legacy replacement: interrupt 8 is timer 1's", taken[RTC]);
  HPET(0x10) = 1; HPET(0x100) = 0; HPET(0x120) = 0;
  taken[PIT] = 0;
  REPORT_IRQS((irqs(PIT, 6, HPET(0xf0), 100000, 6000 * 83)), "and the PIT's again (%d of %d)", got, most);
  control(0, 0x30);
  /* FSB interrupts. */
  if (HPET(0x140) & 0x8000) {
    taken[TIMER] = 0;
    HPET(0x154) = 0xfee00000; HPET(0x150) = TIMER;
    HPET(0x10) = 0;
    HPET(0x140) = 4 | 0x4000; HPET(0x148) = HPET(0xf0) + 100000; HPET(0x14c) = 0;
    HPET(0x10) = 1;
    report(wait_irq(TIMER, 1, PATIENTLY), "FSB: the interrupt is a message");
    HPET(0x140) = 0;
  } else {
    HPET(0x140) = 0x4000; /* nothing is enabled */
    report(!(HPET(0x140) & 0x4000), "FSB: cannot be enabled without the capability");
  }
  cli();
  redirect(2, 0x10000); redirect(8, 0x10000); redirect(20, 0x10000); redirect(21, 0x10000);
  HPET(0x140) = 0;
}

static void lapic(void) {
  handlers[TIMER] = on_irq;
  sti();
  value("divide configuration keeps bits 0, 1 and 3", (apic_write(0x3e0, 0xffffffff), apic_read(0x3e0)));
  static const struct { u8 code, by; } divides[] = { { 0xb, 1 }, { 0, 2 }, { 1, 4 }, { 2, 8 }, { 3, 16 }, { 8, 32 }, { 9, 64 }, { 10, 128 } };
  apic_write(0x320, 0x10000 | TIMER);
  for (int i = 0; i < 8; i++) {
    apic_write(0x3e0, divides[i].code);
    u32 from, count, counts;
    OFTEN(apic_write(0x380, 0x80000000); from = HPET(0xf0); sleep_us(5000); count = 0x80000000 - apic_read(0x390); counts = HPET(0xf0) - from,
      near(count, counts / divides[i].by * 5, counts / divides[i].by * 12), "divide by %d: %d counts in %d us", divides[i].by, count, counts / 100);
  }
  apic_write(0x3e0, 0xb); taken[TIMER] = 0;
  apic_write(0x380, 1000000); sleep_us(20000);
  value("masked, one shot", taken[TIMER] << 1 | (apic_read(0x390) != 0));
  apic_write(0x320, TIMER); sleep_us(1000);
  value("unmasked after its end", taken[TIMER]);
  u32 from = HPET(0xf0);
  apic_write(0x380, 5000000);
  report(wait_irq(TIMER, 1, PATIENTLY) && when[TIMER] - from >= 500000, "one shot (%d us)", (when[TIMER] - from) / 100);
  sleep_us(20000);
  value("one shot, interrupts", taken[TIMER]);
  value("one shot, the count at its end", apic_read(0x390));
  value("the initial count is kept", apic_read(0x380));
  WITHIN("an initial count of 0 stops it", 0, taken[TIMER] = 0; apic_write(0x380, 5000000); apic_write(0x380, 0); sleep_us(20000), taken[TIMER] << 1 | (apic_read(0x390) != 0));
  taken[TIMER] = 0; apic_write(0x320, 0x20000 | TIMER);
  from = HPET(0xf0); apic_write(0x380, 5000000);
  REPORT_IRQS((irqs(TIMER, 4, from, 200000, 500000)), "periodic: %d interrupts of %d", got, most);
  report(near(apic_read(0x390), 0, 5000000), "periodic: the count begins anew");
  apic_write(0x320, 0x30000 | TIMER); taken[TIMER] = 0; sleep_us(50000);
  u32 masked = taken[TIMER];
  report(near(masked, 0, 1), "periodic, masked: no interrupts (%d)", masked);
  report(apic_read(0x390) != 0, "periodic, masked: it counts on");
  apic_write(0x320, 0x20000 | TIMER);
  report(wait_irq(TIMER, masked + 2, PATIENTLY), "periodic, unmasked: it comes again");
  apic_write(0x380, 0); taken[TIMER] = 0; sleep_us(20000);
  report(near(taken[TIMER], 0, 1) && apic_read(0x390) == 0, "periodic: an initial count of 0 stops it (%d)", taken[TIMER]);
  /* Divide by two in place of one: what is left takes twice the time. */
  apic_write(0x320, TIMER);
  OFTEN(taken[TIMER] = 0; apic_write(0x3e0, 0xb); from = HPET(0xf0); apic_write(0x380, 20000000); apic_write(0x3e0, 0),
    wait_irq(TIMER, 1, PATIENTLY) && when[TIMER] - from >= 3000000, "a divide that is changed while it counts (%d us)", (when[TIMER] - from) / 100);
  apic_write(0x3e0, 0xb);
  apic_write(0x320, 0x10000); apic_write(0x380, 0x1000); sleep_us(100);
  if (!(cpuid(1, 0).c >> 24 & 1)) { skip("no TSC deadline"); cli(); return; }
  apic_write(0x320, 0x40000 | TIMER);
  report(rdmsr(0x6e0) == 0, "TSC deadline: disarmed when its mode is entered");
  taken[TIMER] = 0; apic_write(0x380, 1000); sleep_us(1000);
  report(taken[TIMER] == 0 && apic_read(0x390) == 0, "TSC deadline: the initial count is ignored");
  u64 per_ms = rdtsc(); sleep_us(10000); per_ms = (rdtsc() - per_ms) / 10;
  u64 at = rdtsc() + 5 * per_ms; wrmsr(0x6e0, at);
  while (rdtsc() < at) pause_();
  report(rdmsr(0x6e0) == 0 && wait_irq(TIMER, 1, PATIENTLY), "TSC deadline: fires and is disarmed");
  OFTEN(taken[TIMER] = 0; wrmsr(0x6e0, rdtsc() + 5 * per_ms); wrmsr(0x6e0, 0); sleep_us(20000), taken[TIMER] == 0, "TSC deadline: 0 disarms");
  apic_write(0x320, 0x50000 | TIMER); wrmsr(0x6e0, rdtsc() + per_ms); sleep_us(10000);
  report(taken[TIMER] == 0, "TSC deadline: masked");
  OFTEN(apic_write(0x320, 0x40000 | TIMER); taken[TIMER] = 0; wrmsr(0x6e0, rdtsc() + 5 * per_ms); apic_write(0x320, TIMER); sleep_us(20000), taken[TIMER] == 0 && rdmsr(0x6e0) == 0, "TSC deadline: leaving its mode disarms");
  cli();
}

int main(void) {
  stop_hpet();
  HPET(0xf0) = 0; HPET(0xf4) = 0; HPET(0x10) = 1;
  if (has("pit")) pit();
  if (has("rtc")) rtc();
  if (has("hpet")) hpet();
  HPET(0x10) = 1;
  if (has("lapic")) lapic();
  return done();
}
